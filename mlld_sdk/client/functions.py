"""The client's calls as plain functions, on one client for the whole program that is made when first needed.

They take what the methods of `Client` take. Which engine they use is decided like for any client: `MLLD_ENGINE`, else
the `mlld` on PATH.
"""

import threading
from typing import Unpack

from mlld_sdk.base.durations import DEFAULT, Timeout
from mlld_sdk.client.client import Client
from mlld_sdk.client.handles import ExecuteHandle, ProcessHandle
from mlld_sdk.client.options import SignContentOptions, SignOptions
from mlld_sdk.engines.requests import AnyPath
from mlld_sdk.scripts.params import RunOptions
from mlld_sdk.scripts.types import AnalyzeResult, ContentSignature, ExecuteResult, FilesystemStatus, FileVerifyResult

_lock = threading.Lock()
_client: Client | None = None


def default_client() -> Client:
    """Give the client these functions use, making it if there is none."""
    global _client
    with _lock:
        if _client is None:
            _client = Client()
        return _client


def set_default_client(client: Client | None) -> None:
    """Let these functions use that client from now on; the one before is closed. `None`: a new one when needed."""
    global _client
    with _lock:
        before, _client = _client, client
    if before is not None and before is not client:
        before.close()


def close() -> None:
    """End the default client's engines, if it has any; the next call makes a new client."""
    set_default_client(None)


def process(script: str, *, file_path: AnyPath | None = None, payload: object = None,
            **options: Unpack[RunOptions]) -> str:  # fmt: skip
    """Run script text and return its output; see `Client.process`."""
    return default_client().process(script, file_path=file_path, payload=payload, **options)


def process_result(script: str, *, file_path: AnyPath | None = None, payload: object = None,
                   **options: Unpack[RunOptions]) -> ExecuteResult:  # fmt: skip
    """Run script text and return everything it produced; see `Client.process_result`."""
    return default_client().process_result(script, file_path=file_path, payload=payload, **options)


def process_async(script: str, *, file_path: AnyPath | None = None, payload: object = None,
                  **options: Unpack[RunOptions]) -> ProcessHandle:  # fmt: skip
    """Start a run of script text; see `Client.process_async`."""
    return default_client().process_async(script, file_path=file_path, payload=payload, **options)


def execute(filepath: AnyPath, payload: object = None, **options: Unpack[RunOptions]) -> ExecuteResult:
    """Run a script file; see `Client.execute`."""
    return default_client().execute(filepath, payload, **options)


def execute_async(filepath: AnyPath, payload: object = None, **options: Unpack[RunOptions]) -> ExecuteHandle:
    """Start a run of a script file; see `Client.execute_async`."""
    return default_client().execute_async(filepath, payload, **options)


def analyze(filepath: AnyPath, *, timeout: Timeout = DEFAULT) -> AnalyzeResult:
    """Return what a module defines, without running it; see `Client.analyze`."""
    return default_client().analyze(filepath, timeout=timeout)


def fs_status(
    glob: str | None = None, *, base_path: str | None = None, timeout: Timeout = DEFAULT
) -> list[FilesystemStatus]:
    """List signed files and how they stand; see `Client.fs_status`."""
    return default_client().fs_status(glob, base_path=base_path, timeout=timeout)


def sign(path: str, **options: Unpack[SignOptions]) -> FileVerifyResult:
    """Sign a file; see `Client.sign`."""
    return default_client().sign(path, **options)


def verify(path: str, *, base_path: str | None = None, timeout: Timeout = DEFAULT) -> FileVerifyResult:
    """Return whether a file is signed and unchanged; see `Client.verify`."""
    return default_client().verify(path, base_path=base_path, timeout=timeout)


def sign_content(content: str, identity: str, **options: Unpack[SignContentOptions]) -> ContentSignature:
    """Sign a piece of content; see `Client.sign_content`."""
    return default_client().sign_content(content, identity, **options)
