"""Run `tumorbatch` again and again, each time in a forked child: its modules are loaded once.

A request is a line of JSON on standard input, {"arguments", "folder", "output"}; the answer is the exit
status as a line: the exit code, or minus the signal. Workers are forked as well, so the shim that is
loaded into this process is in all of them, and the network is one that needs no TensorFlow.
"""

import atexit
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import numpy as np

from tumorbatch import workers
from tumorbatch.cli import summaries  # noqa: F401 - what the children would load one by one
from tumorbatch.cli.main import main
from tumorbatch.infer import inference, network  # noqa: F401
from tumorbatch.preprocess import shard  # noqa: F401
from tumorbatch.preprocess.explore import explore  # noqa: F401


def _score(images: Any) -> Any:
    return images.reshape(len(images), -1).astype(np.float32).mean(1) / 64 - 1


def _child(request: dict[str, Any]) -> NoReturn:
    os.setsid()  # a fault kills the group: this process and its workers
    os.chdir(request["folder"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 1
    try:
        main(request["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)


if __name__ == "__main__":
    workers._CONTEXT = multiprocessing.get_context("fork")  # type: ignore[assignment]
    network.Network.load = lambda self: _score  # type: ignore[method-assign]
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            _child(request)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        print(status, flush=True)
