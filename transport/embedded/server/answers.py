"""What the engine answers: events, results and errors in their envelopes, with the real engine's losses on demand."""

import errno
from typing import Any

from mlld_sdk.transport.embedded.errors import CommandFailure, RequestError, ScriptFailure
from mlld_sdk.transport.embedded.server import habits
from mlld_sdk.transport.embedded.server.misbehaviour import Misbehaviour
from mlld_sdk.transport.embedded.server.wire import LineWriter, write_json

VERSION = "0.1.0"


class Answers:
    """Sends events and results. In the extended protocol nothing is lost, and events carry their request's id twice."""

    def __init__(self, writer: LineWriter, mischief: Misbehaviour, *, extended: bool) -> None:
        self._writer = writer
        self._mischief = mischief
        self._extended = extended

    def event(self, request_id: Any, body: dict[str, Any]) -> None:
        """Send an event of a request."""
        if self._extended:
            self._send({"event": {"id": request_id, "requestId": request_id, **body}})
        else:
            self._send({"event": {"id": request_id, **habits.lossy_event(body)}})

    def result(self, request_id: Any, payload: Any) -> None:
        """Send a result; what has an id of its own, or is no object, stands under `value`."""
        if not self._extended:
            payload = habits.copy_with_losses(habits.copy_with_losses(payload))
        fields = payload if isinstance(payload, dict) and "id" not in payload else {"value": payload}
        self._send({"result": {"id": request_id, **fields}})

    def error(self, fault: Exception, path: str | None = None, *, execute: bool = False) -> dict[str, Any]:
        """Return what a result says of a failure, of the script at `path` if it was one with a path."""
        if isinstance(fault, RequestError):
            return {"error": {"code": fault.code, "message": fault.message}}
        failure = _as_failure(fault)
        code, name = failure.code, failure.name
        if not self._extended:
            code = habits.flattened_code(code, failure.message, execute=execute)
            name = "ExecuteError" if execute and path is not None else name
        payload: dict[str, Any] = {"code": code, "message": failure.message, "name": name}
        if execute and path:
            payload["filePath"] = path
        if isinstance(failure, CommandFailure):
            payload["unanswered"] = failure.unanswered
        payload["stack"] = f"{name}: {failure.message}\n    at embedded engine {VERSION}"
        return {"error": payload}

    def _send(self, message: dict[str, Any]) -> None:
        line = write_json(message if self._extended else habits.copy_with_losses(message)) + b"\n"
        if self._mischief:
            self._mischief.line_out(line, self._writer.write)
        else:
            self._writer.write(line)


def _as_failure(fault: Exception) -> ScriptFailure:
    """Return what went wrong with one request as that request's failure."""
    if isinstance(fault, ScriptFailure):
        return fault
    if isinstance(fault, RecursionError):
        return ScriptFailure("Maximum call stack size exceeded", name="RangeError")
    if isinstance(fault, OSError):  # of the place it runs in: a working directory that is gone, a disk that is full
        name = "" if fault.filename is None else f", '{fault.filename}'"
        return ScriptFailure(f"{errno.errorcode.get(fault.errno or 0, 'EIO')}: {fault.strerror or fault}{name}")
    return ScriptFailure(f"The embedded engine is at fault: {type(fault).__name__}: {fault}")
