"""Run `tumorbatch` again and again, each time in a forked child: its modules are loaded once.

A request is a line of JSON on standard input, {"arguments", "folder", "output"}; the answer is the exit
status as a line: the exit code, or minus the signal. Workers are forked as well, so the shim that is
loaded into this process is in all of them. With "light" as argument, the network is one that needs no
TensorFlow; with "tensorflow", that is imported here, and starts its threads in each child. Figures
are not drawn, and forests have five trees: the files are there, and that is what counts.
"""

import atexit
import contextlib
import ctypes
import importlib
import json
import multiprocessing
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import numpy as np

from tumorbatch import workers
from tumorbatch.cli.main import main
from tumorbatch.runtime import load_tensorflow

# What the children would load one by one.
_LIGHT = (
    "cli.summaries", "cli.table_summaries", "cli.shard", "cli.infer", "cli.explore", "infer.inference",
    "preprocess.shard", "preprocess.dicom.decode", "preprocess.explore.explore",
    "preprocess.explore.page",
)  # fmt: skip
# Where they are installed: pyarrow loads pandas, and results need the others.
_OF_OTHERS = (
    "pandas", "scipy.stats", "sklearn.ensemble", "matplotlib.figure", "matplotlib.backends.backend_agg",
)  # fmt: skip
_HEAVY = (
    "cli.model_summaries", "cli.train", "cli.evaluate", "cli.export", "train.training", "train.fit",
    "evaluation.evaluate", "evaluation.page", "evaluation.baselines", "evaluation.gradcam",
    "evaluation.model_card", "workflows.evaluate", "export",
)  # fmt: skip


_LIMIT = 120  # seconds, after which a run counts as hanging: status -14
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)


def _score(images: Any) -> Any:
    return images.reshape(len(images), -1).astype(np.float32).mean(1) / 64 - 1


def _child(request: dict[str, Any]) -> NoReturn:
    os.setsid()  # a fault kills the group: this process and its workers
    signal.alarm(_LIMIT)
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


def _no_drawing(_: object, file: Any, **__: object) -> None:
    file.write(b"a figure")


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    workers._CONTEXT = multiprocessing.get_context("fork")  # type: ignore[assignment]
    light = sys.argv[1] == "light"
    if light:
        from tumorbatch.infer import network

        network.Network.load = lambda self: _score  # type: ignore[method-assign]
    else:
        load_tensorflow(threads=1, onednn="off")
    for name in _LIGHT if light else _HEAVY:
        importlib.import_module(f"tumorbatch.{name}")
    for name in _OF_OTHERS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from matplotlib.figure import Figure

    Figure.savefig = _no_drawing  # type: ignore[method-assign]
    import sklearn.ensemble

    forest = sklearn.ensemble.RandomForestClassifier
    sklearn.ensemble.RandomForestClassifier = lambda _, **options: forest(5, **options)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            _child(request)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # its workers: they may hold a lock until they end
            while True:
                os.waitpid(-1, 0)
        print(status, flush=True)
