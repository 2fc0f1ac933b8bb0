"""Shards in S3 that TensorFlow reads itself, by tensorflow-io's file system (the extra `io`)."""

import os

from tumorbatch.errors import ConfigError
from tumorbatch.runtime import load_tensorflow
from tumorbatch.standard_error import silenced

# Of its client, which does not know all of the SDK's variables.
_ATTEMPTS = 4  # of a request, as those of `tumorbatch.store_connection`
_PIECE = 8 << 20  # bytes a request; it sets aside 26 times as much, and 50 MB would be its own choice


def connect(threads: int | None = None, onednn: str = "auto") -> None:
    """Let TensorFlow open `s3://` paths, with the endpoint that the SDK's variables name.

    A process that has read from S3 so ends with SIGABRT when Python leaves it (tensorflow/io #2039):
    the command line leaves by `cli.main.Program`, which ends the process itself.

    Args:
        threads: As `load_tensorflow`, and so `onednn`.

    Raises:
        ConfigError: tensorflow-io is not installed.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:  # with its scheme: S3_USE_HTTPS, which the documentation names, is not read any more
        os.environ.setdefault("S3_ENDPOINT", endpoint.rstrip("/"))
    if os.environ.get("AWS_CA_BUNDLE"):
        os.environ.setdefault("S3_CA_FILE", os.environ["AWS_CA_BUNDLE"])
    os.environ.setdefault("AWS_MAX_ATTEMPTS", str(_ATTEMPTS))
    os.environ.setdefault("S3_MULTI_PART_DOWNLOAD_CHUNK_SIZE", str(_PIECE))
    load_tensorflow(threads, onednn)  # before anything else imports it
    try:
        with silenced():
            import tensorflow_io  # noqa: F401 - its file systems register themselves
    except (ImportError, NotImplementedError) as error:
        raise ConfigError(
            "--stream needs tensorflow-io, which is not installed here: `pip install --constraint "
            "constraints-io.txt '.[io]'` in its own environment. Without --stream the shards are "
            "copied first, and nothing more is needed."
        ) from error
