"""A proxy in front of an S3 server that counts requests and breaks those that a test names."""

import http.client
import http.server
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass

# Of a method and a path: None (pass it on), a status to answer, or "cut" (close in the middle).
Rule = Callable[[str, str], int | str | None]

_BODY = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>InternalError</Code>'
    b"<Message>We encountered an internal error.</Message></Error>"
)


@dataclass
class Request:
    """What was asked for, and what happened to it."""

    method: str
    path: str
    broken: bool


class Proxy:
    """Listens on a port of its own and passes requests on to `server`, as "host:port"."""

    def __init__(self, server: str) -> None:
        self.rule: Rule = lambda method, path: None
        self.requests: list[Request] = []
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_request(self) -> None:
                path = urllib.parse.unquote(self.path)
                action = proxy.rule(self.command, path)
                proxy.requests.append(Request(self.command, path, action is not None))
                length = int(self.headers.get("Content-Length") or 0)
                if action == "cut":
                    self.rfile.read(length // 2)
                    self.connection.close()
                    self.close_connection = True
                    return
                body = self.rfile.read(length)
                if isinstance(action, int):
                    self._answer(action, [("Content-Type", "application/xml")], _BODY)
                    return
                onward = http.client.HTTPConnection(server, timeout=60)
                try:
                    onward.putrequest(
                        self.command, self.path, skip_host=True, skip_accept_encoding=True
                    )
                    for name, value in self.headers.items():
                        onward.putheader(name, value)
                    onward.endheaders(body)
                    answer = onward.getresponse()
                    headers = [pair for pair in answer.getheaders() if pair[0] != "Transfer-Encoding"]
                    self._answer(answer.status, headers, answer.read())
                except OSError:
                    self.connection.close()
                    self.close_connection = True
                finally:
                    onward.close()

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                names = {name.lower() for name, _ in headers}
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                if "content-length" not in names:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def count(self, method: str, part: str) -> int:
        """Return how many requests there were with this method and this text in their path."""
        return sum(one.method == method and part in one.path for one in self.requests)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
