"""Engines on the nodes of a Ray cluster: each computes whole chunks, and returns them.

The process that calls `compute` is the only one that writes. Ray itself repeats nothing: a chunk whose
engine is lost goes to another engine, and a lost engine is replaced where the cluster has room for it.
"""

import contextlib
import importlib.util
import logging
import math
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tumorbatch.errors import ConfigError, InputError, TryAgainError, TumorBatchError
from tumorbatch.file_list import is_seen
from tumorbatch.files import counted, printable
from tumorbatch.preprocessing_config import DECODE_VERSION
from tumorbatch.runtime import versions
from tumorbatch.signals import end_if_asked

log = logging.getLogger(__name__)

_WAIT = 1.0  # seconds of one wait for the engines
_PATIENCE = 60.0  # seconds without any engine
_LOSSES = 3  # engines that are lost with one chunk, before it is left to this machine
_STARTS = 3  # starts in a row that fail
# Ray sends statistics of its use unless this says no. When the head of the cluster dies, Ray would end
# this process after a minute, with another exit code.
_VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_gcs_rpc_server_reconnect_timeout_s": "86400"}
_OWN_VARIABLES = "TUMORBATCH_"
_DECIDE = (
    "tensorflow", "keras", "numpy", "opencv-python-headless", "pyarrow", "simplejpeg", "scipy",
    "pydicom", "python-gdcm", "nibabel",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the engines are to run.

    Attributes:
        address: "auto", or host:port of the cluster's head.
        engines: Their number.
        gpus: Of each; below 1 for a share of one.
    """

    address: str = "auto"
    engines: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.engines < 1:
            raise ConfigError(f"--engines must be at least 1. Received: {self.engines}.")
        if not 0 <= self.gpus < math.inf or (self.gpus > 1 and self.gpus % 1):
            raise ConfigError(
                "--gpus-per-engine must be a whole number, or between 0 and 1. "
                f"Received: {self.gpus:g}."
            )
        host, _, port = self.address.rpartition(":")
        if self.address != "auto" and not (host and "/" not in host and port.isdecimal()):
            raise ConfigError(
                "--address must be `auto`, or host:port of the cluster's head. "
                f"Received: {self.address}."
            )


class Facts(NamedTuple):
    """What an engine says of itself before it gets work.

    Attributes:
        node: Name of its machine.
        versions: Of what decides the results.
        missing: Those of the paths to look for that it does not see.
    """

    node: str
    versions: dict[str, str]
    missing: list[str]


class Engine:
    """What runs on a node, as a process beside others. Subclasses compute.

    Args:
        variables: Of this project, from the environment of the process that asks.
    """

    def __init__(self, variables: dict[str, str]) -> None:
        os.environ.update(variables)

    def look(self, paths: Sequence[str]) -> Facts:
        """Return the facts of this node, and which of the paths it does not see."""
        return Facts(platform.node(), _versions(), [path for path in paths if not is_seen(path)])

    def compute(self, work: Any) -> Any:
        """Compute a chunk."""
        raise NotImplementedError


def _versions() -> dict[str, str]:
    return {**versions(*_DECIDE), "the decoding": str(DECODE_VERSION)}


@dataclass(eq=False, slots=True)
class _Chunk:
    """Work for an engine; `losses`: engines that were lost with it."""

    number: int
    work: Any
    losses: int = 0


@dataclass(eq=False, slots=True)
class _Worker:
    """An engine: Ray's handle, its call under way, and its node, once it has told it."""

    actor: Any
    call: Any
    chunk: _Chunk | None = None
    node: str = ""


def refuse_missing() -> None:
    """Raise `ConfigError` where Ray is not installed."""
    if sys.modules.get("ray", ...) is None or importlib.util.find_spec("ray") is None:
        raise ConfigError("--executor ray needs Ray: `pip install '.[ray]'` here and on all nodes.")


def compute(
    cluster: Cluster,
    cores: int,
    engine: Callable[..., Engine],
    arguments: Sequence[Any],
    paths: Sequence[str],
    work: Iterable[tuple[int, Any]],
) -> Generator[tuple[int, Any]]:
    """Yield (number, result) of chunks, in the order in which they are finished.

    A chunk with which three engines were lost is left out, with a warning.

    Args:
        cluster: Where the engines run.
        cores: Of each.
        engine: Subclass of `Engine`, which the nodes can import.
        arguments: Of the engine, after the variables.
        paths: Files that every node must see.
        work: (number, what `Engine.compute` gets) of each chunk.

    Raises:
        ConfigError: Ray cannot be used; a node has other versions, or lacks the package.
        InputError: A node does not see the files.
        TryAgainError: There is no cluster, or no engine for a minute.
    """
    with _connected(cluster) as ray:
        try:
            engines = _Engines(ray, cluster, cores, engine, arguments, paths)
            yield from engines.compute(work)
        except KeyboardInterrupt:
            end_if_asked()  # Ray replaces the exception of a signal's handler by its own
            raise
        except ray.exceptions.RayError as error:
            raise TryAgainError(
                f"The connection to the Ray cluster is lost ({_first_line(error)}). What is done is "
                "kept; the same command continues."
            ) from error


@contextlib.contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    """Connect this process to the cluster; Ray prints nothing, and leaves the signals alone."""
    os.environ.update(_VARIABLES)
    import ray
    from ray._private import worker as printer

    printer._worker_logs_enabled = False  # else what a lost node leaves is printed as standard output
    before = signal.getsignal(signal.SIGTERM)
    try:
        if cluster.address != "auto":  # Ray would try for a minute
            host, _, port = cluster.address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, ValueError) as error:
        raise TryAgainError(
            f"There is no Ray cluster at {cluster.address} ({_first_line(error)}). Start it with "
            "`ray start`, this machine included, or correct --address."
        ) from error
    except RuntimeError as error:
        raise ConfigError(f"Ray cannot be used: {_first_line(error)}.") from error
    finally:
        if callable(before):
            signal.signal(signal.SIGTERM, before)
    try:
        yield ray
    finally:
        ray.shutdown()


class _Engines:
    """The engines of one run; see `compute`."""

    def __init__(
        self,
        ray: Any,
        cluster: Cluster,
        cores: int,
        engine: Callable[..., Engine],
        arguments: Sequence[Any],
        paths: Sequence[str],
    ) -> None:
        self._ray = ray
        self._cluster = cluster
        self._cores = cores
        self._paths = list(paths)
        variables = {name: text for name, text in os.environ.items() if name.startswith(_OWN_VARIABLES)}
        self._arguments = [ray.put(argument) for argument in (variables, *arguments)]
        self._class = ray.remote(
            num_cpus=cores, num_gpus=cluster.gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )(engine)
        self._workers: list[_Worker] = []
        self._again: list[_Chunk] = []
        self._failed = 0  # starts in a row
        self._seen = time.monotonic()  # when there was an engine last

    def compute(self, work: Iterable[tuple[int, Any]]) -> Generator[tuple[int, Any]]:
        """Yield what is finished."""
        waiting = iter(work)
        more: _Chunk | None = self._next(waiting)
        while more or self._again or any(worker.chunk for worker in self._workers):
            self._start_engines(more)
            for worker in self._workers:
                chunk = self._again[-1] if self._again else more
                if worker.call is None and chunk is not None:
                    if self._again:
                        self._again.pop()
                    else:
                        more = self._next(waiting)
                    worker.chunk, worker.call = chunk, worker.actor.compute.remote(chunk.work)
            yield from self._collect()

    @staticmethod
    def _next(waiting: Iterator[tuple[int, Any]]) -> _Chunk | None:
        pair = next(waiting, None)
        return None if pair is None else _Chunk(*pair)

    def _start_engines(self, more: _Chunk | None) -> None:
        """Start as many engines as there is work for."""
        busy = sum(worker.chunk is not None for worker in self._workers)
        wanted = self._cluster.engines if more else min(self._cluster.engines, busy + len(self._again))
        while len(self._workers) < wanted:
            actor = self._class.remote(*self._arguments)
            self._workers.append(_Worker(actor, actor.look.remote(self._paths)))

    def _collect(self) -> Iterator[tuple[int, Any]]:
        """Wait a moment for the end of calls, and yield what they give."""
        calls = {worker.call: worker for worker in self._workers if worker.call is not None}
        ready, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(calls), num_returns=1, timeout=_WAIT)
        errors = self._ray.exceptions
        for call in ready:
            worker = calls[call]
            try:
                value = self._ray.get(call)
            except errors.RayTaskError as error:
                raise _own_error(error.cause, worker.node) from error
            except errors.RayError as error:
                self._lost(worker, error)
                continue
            chunk, worker.call, worker.chunk, self._failed = worker.chunk, None, None, 0
            if chunk is None:
                worker.node = value.node
                _refuse_other(value)
                log.info("an engine runs on %s", printable(worker.node))
            else:
                yield chunk.number, value
        if any(worker.node for worker in self._workers):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > _PATIENCE:
            raise TryAgainError(
                f"The Ray cluster has had no engine for {_PATIENCE:g} s: no node answers that has "
                f"{counted(self._cores, 'free CPU')} and {self._cluster.gpus:g} GPUs. What is done is "
                "kept; the same command continues."
            )

    def _lost(self, worker: _Worker, error: Exception) -> None:
        """Keep the chunk of a lost engine for another one."""
        self._workers.remove(worker)
        with contextlib.suppress(Exception):  # it may be alive, and out of reach
            self._ray.kill(worker.actor)
        if worker.node:
            log.info("an engine on %s is lost: %s", printable(worker.node), _first_line(error))
        else:
            self._failed += 1
            if "creation task" in str(error):
                raise ConfigError(
                    f"An engine cannot start: {_last_line(error)}. Install the same packages on all "
                    "nodes."
                )
            if self._failed >= _STARTS * self._cluster.engines:
                raise TryAgainError(
                    f"Engines end as soon as they start: {_first_line(error)}. What is done is kept; "
                    "the same command continues."
                )
        chunk = worker.chunk
        if chunk is None:
            return
        chunk.losses += 1
        if chunk.losses < _LOSSES:
            self._again.append(chunk)
        else:
            log.warning("%d engines were lost with one chunk: it is computed here", chunk.losses)


def _refuse_other(facts: Facts) -> None:
    """Raise where a node would compute other results than this machine, or none."""
    node, here = printable(facts.node), _versions()
    for name in sorted(here.keys() | facts.versions.keys()):
        there, own = facts.versions.get(name, "none"), here.get(name, "none")
        if there != own:
            raise ConfigError(
                f"The node {node} has another version of {name}: {there}, and this machine has {own}. "
                "Install the same versions on all nodes."
            )
    missing = [path for path in facts.missing if is_seen(path)]
    if missing:
        raise InputError(
            f"The node {node} does not see {printable(missing[0])}. Mount the folder there under the "
            "same name, or read from an object store."
        )


def _own_error(cause: Any, node: str) -> Exception:
    """Return what an engine has raised, with the name of its node."""
    if isinstance(cause, TumorBatchError):
        return type(cause)(f"On the node {printable(node) or 'of an engine'}: {cause}")
    return cause if isinstance(cause, Exception) else RuntimeError(str(cause))


def _lines(error: Exception) -> list[str]:
    lines = [line.strip() for line in str(error).splitlines()]
    return [line[:300].rstrip(".:") for line in lines if line] or [type(error).__name__]


def _first_line(error: Exception) -> str:
    return printable(_lines(error)[0])


def _last_line(error: Exception) -> str:
    return printable(_lines(error)[-1])
