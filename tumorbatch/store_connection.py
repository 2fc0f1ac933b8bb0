"""Connections to object stores, and what their answers mean for the user.

Credentials, region and endpoint come from the environment, by the variables of the stores' own tools
(AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, ...). A connection is
made once a process: worker processes, which are spawned, make their own.
"""

import datetime
import functools
import os
import re
from typing import Any

from tumorbatch.errors import ConfigError, InputError, OutputError, TryAgainError, TumorBatchError
from tumorbatch.found_file import printable
from tumorbatch.object_path import ObjectPath

_CONNECT_SECONDS, _REQUEST_SECONDS = 5, 10  # with all attempts less than --timeout
_ATTEMPTS = 4  # of one request, as the SDK makes them, unless AWS_MAX_ATTEMPTS says otherwise

_AWS = re.compile(
    r"AWS Error (\w+)(?: \(HTTP status (\d+)\))? during (\w+) operation: ?(.*)", re.DOTALL
)
_EXCEPTION = re.compile(r"ExceptionName: (\w+)")
_WRONG_KEY = {
    "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN_ID", "EXPIRED_TOKEN",
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
}  # fmt: skip
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_NO_SIGN_REQUEST",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip


def connection(path: ObjectPath) -> Any:
    """Return the file system of an object, a `pyarrow.fs.FileSystem`."""
    try:
        if path.scheme == "s3":
            return _s3(path.container)
        return _google() if path.scheme == "gs" else _azure(path.account)
    except OSError as error:
        raise explained(error, path) from error


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@functools.lru_cache(maxsize=16)
def _s3(bucket: str) -> Any:
    endpoint = _endpoint()
    if endpoint:
        # Other servers than Amazon's answer the checksums that its SDK adds with 411 or 501.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    from pyarrow import fs

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        region = "us-east-1" if endpoint else fs.resolve_s3_region(bucket)
    options: dict[str, Any] = {
        "endpoint_override": endpoint,
        "region": region,
        "anonymous": os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "yes", "true"),
        "connect_timeout": _CONNECT_SECONDS,
        "request_timeout": _REQUEST_SECONDS,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(
            int(os.environ.get("AWS_MAX_ATTEMPTS") or _ATTEMPTS)
        ),
    }
    try:
        return fs.S3FileSystem(**options, allow_delayed_open=True)  # a small object is one request
    except TypeError:  # before pyarrow 19
        return fs.S3FileSystem(**options)


@functools.lru_cache(maxsize=1)
def _google() -> Any:
    from pyarrow import fs

    limit = datetime.timedelta(seconds=_ATTEMPTS * _REQUEST_SECONDS)
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator:
        scheme, _, host = emulator.rpartition("://")
        return fs.GcsFileSystem(
            anonymous=True, endpoint_override=host, scheme=scheme or "http", retry_time_limit=limit
        )
    return fs.GcsFileSystem(retry_time_limit=limit)


@functools.lru_cache(maxsize=4)
def _azure(account: str) -> Any:
    from pyarrow import fs

    account = account or os.environ.get("AZURE_STORAGE_ACCOUNT", "")
    if not account:
        raise ConfigError(
            "The storage account is not known. Set AZURE_STORAGE_ACCOUNT, or write the URI as "
            "abfs://container@account.dfs.core.windows.net/folder."
        )
    if not hasattr(fs, "AzureFileSystem"):
        raise ConfigError("This pyarrow cannot read Azure. Install pyarrow 20 or newer.")
    key, token = os.environ.get("AZURE_STORAGE_KEY"), os.environ.get("AZURE_STORAGE_SAS_TOKEN")
    return fs.AzureFileSystem(account, account_key=key, sas_token=None if key else token)


def answer(error: Exception) -> str:
    """Return what a store answered, without the object's name and the request's number."""
    match = _AWS.search(str(error))
    if match is None:
        return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    code, status, operation, words = match.groups()
    if code == "NETWORK_CONNECTION":
        return re.sub(r"curlCode: \d+, |; Details:.*", "", words, flags=re.DOTALL).rstrip(".")
    named = _EXCEPTION.search(words)
    code = named[1] if named else code
    return f"{code}{f' (HTTP {status})' if status else ''} at {operation}"


def _server(path: ObjectPath) -> str:
    return (_endpoint() if path.scheme == "s3" else None) or f"the {path.scheme} service"


def no_container(path: ObjectPath) -> InputError:
    """Return the error for an object whose bucket does not exist."""
    return InputError(
        f"{printable(str(path))}: {_server(path)} has no bucket {path.container}. Correct the name, or "
        "AWS_ENDPOINT_URL."
    )


def explained(error: Exception, path: ObjectPath, writing: bool = False) -> TumorBatchError:
    """Return the error for what a store answered, with its exit code and a remedy.

    Args:
        error: What `pyarrow.fs` raised.
        path: The object, or the folder.
        writing: It was to be written.
    """
    text, reason, name = str(error), answer(error), printable(str(path))
    missing = OutputError if writing else InputError
    match = _AWS.search(text)
    code = match[1] if match else ""
    if match and (named := _EXCEPTION.search(match[4])):
        code = named[1]
    server = _server(path)
    if code in ("NO_SUCH_BUCKET", "NoSuchBucket", "RESOURCE_NOT_FOUND") or "ontainerNotFound" in text:
        return missing(str(no_container(path)))
    if code == "NETWORK_CONNECTION" or re.search("connect|resolve|timed? ?out", text, re.IGNORECASE):
        return TryAgainError(
            f"{name}: {server} does not answer ({reason}). Check the network and AWS_ENDPOINT_URL; "
            "what is done is kept, and the same command continues."
        )
    refused = code in ("ACCESS_DENIED", "AccessDenied") or re.search(r"\b40[013]\b|ermission", text)
    if path.scheme == "s3" and (refused or code in _WRONG_KEY) and not _has_credentials():
        return ConfigError(
            f"{name}: no credentials were found, and {server} refuses a request without "
            f"({reason}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
            "AWS_NO_SIGN_REQUEST=1 for a public bucket."
        )
    if code in _WRONG_KEY:
        return ConfigError(
            f"{name}: {server} does not accept the credentials ({reason}). Correct AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY or AWS_PROFILE."
        )
    if refused:
        return missing(
            f"{name}: {server} refuses access ({reason}). Give these credentials the right to list and "
            "read there, and to write where the output goes."
        )
    return TryAgainError(
        f"{name}: {server} failed ({reason}). What is done is kept; run the same command again."
    )


def _has_credentials() -> bool:
    files = (os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), "~/.aws/config")
    return any(os.environ.get(name) for name in _CREDENTIALS) or any(
        os.path.exists(os.path.expanduser(file)) for file in files
    )
