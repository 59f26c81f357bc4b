"""The engine's main loop: reads requests, has scripts run, answers the rest at once."""

import os
import signal
from types import FrameType
from typing import Any, NoReturn

from mlld_sdk.transport.embedded.errors import RequestError, aborted, invalid_request
from mlld_sdk.transport.embedded.server import habits, params
from mlld_sdk.transport.embedded.server.answers import VERSION, Answers
from mlld_sdk.transport.embedded.server.misbehaviour import Misbehaviour, hang
from mlld_sdk.transport.embedded.server.options import EmbeddedOptions
from mlld_sdk.transport.embedded.server.runner import SHUTDOWN_GRACE, ScriptRunner
from mlld_sdk.transport.embedded.server.wire import LineWriter, id_text, read_json, read_lines

IMITATED = "2.0.5"
FEATURES = (
    "full-values", "private-descriptors", "checkpoint", "checkpoint-events", "survives-failures", "metrics",
    "signatures", "file-write", "streaming", "state-update", "cancel-at-steps", "command-failures",
)  # fmt: skip


class ShutdownRequested(BaseException):  # not an error: SIGTERM or SIGINT arrived, and nothing may catch it on its way
    """The engine was asked to end."""


class EmbeddedServer:
    """One engine process."""

    def __init__(self, options: EmbeddedOptions) -> None:
        self._options = options
        self._extended = not options.like_real
        self._writer = LineWriter(options.response_fd, self._unheard)
        self._mischief = Misbehaviour(options.misbehave)
        self._answers = Answers(self._writer, self._mischief, extended=self._extended)
        self._runner = ScriptRunner(options, self._answers, self._mischief)

    def serve(self) -> int:
        """Answer until the requests end or a signal comes, and return the exit code."""
        self._mischief.start()
        wake = self._install_signals()
        try:
            for line in read_lines(self._options.request_fd, wake, self._runner.begin):
                self._mischief.line_read()
                if line:
                    self._line(line)
        except ShutdownRequested:
            return self._runner.end()
        if self._mischief.asks("ignore-eof"):
            hang()
        return self._runner.end()

    def _install_signals(self) -> int:
        """Make SIGTERM and SIGINT end the engine; return the descriptor that wakes the reader for them."""

        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, _ignore)
            raise ShutdownRequested

        handler = _ignore if self._mischief.asks("ignore-sigterm") else stop
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        return wake

    def _unheard(self) -> NoReturn:
        """Stop everything and exit: the reader of the answers has gone."""
        self._runner.kill_children()
        os._exit(1 if self._options.like_real else 0)

    def _line(self, line: str) -> None:
        request_id = None
        try:
            request = read_json(line)
            if request is None and not self._extended:
                if not self._options.survive:
                    habits.last_words(habits.NULL_CRASH)
                    os._exit(1)
                return
            fields = request if isinstance(request, dict) else {}
            given_id = fields.get("id")
            request_id = given_id if params.is_id(given_id) else None
            self._dispatch(fields.get("method"), request_id, fields.get("params"))
        except Exception as fault:  # noqa: BLE001 - a request that cannot be served must not cost the others the engine
            self._answers.result(request_id, self._answers.error(fault))

    def _dispatch(self, method: Any, request_id: Any, given: Any) -> None:
        if not isinstance(method, str) or not method:
            raise invalid_request("Request method is required")
        if request_id is None:
            what = "Cancel id" if method == "cancel" else "Request id"
            raise invalid_request(f"{what} is required")
        if method == "cancel":
            self._cancel(request_id)
        elif method in ("state:update", "file:write"):
            with self._runner.alone():
                self._control(method, request_id, given)
        elif self._runner.find(request_id) is not None:
            raise RequestError("REQUEST_IN_PROGRESS", f"Request {id_text(request_id)} is already active")
        elif method in ("process", "execute"):
            self._mischief.request(self._writer.write)
            self._runner.start(request_id, method, given)
        else:
            self._answers.result(request_id, self._answer(method, given))

    def _answer(self, method: str, given: Any) -> Any:
        """Return the answer to what is no script."""
        if method == "hello" and self._extended:
            about = {"engine": "embedded", "version": VERSION, "mlld": IMITATED, "protocol": 1}
            return {"value": {**about, "features": list(FEATURES)}}
        if method == "analyze":
            from mlld_sdk.transport.embedded.server.analysis import analyze

            return analyze(given)
        if method in ("sig:sign", "sig:verify", "sig:sign-content", "fs:status"):
            from mlld_sdk.transport.embedded.server.signing import answer

            return answer(method, given)
        raise RequestError("METHOD_NOT_FOUND", f"Method '{method}' is not supported")

    def _cancel(self, request_id: Any) -> None:
        request = self._runner.find(request_id)
        if request is None:
            raise RequestError("REQUEST_NOT_FOUND", f"No active request for id {id_text(request_id)}")
        self._runner.abort(request, aborted())

    def _control(self, method: str, request_id: Any, given: Any) -> None:
        """Change the state of a running request, or write a file in its name."""
        target, path = params.control_target(method, given)
        request = self._runner.find(target)
        if request is not None:
            if method == "file:write" and not request.execute:
                raise RequestError("FILE_WRITE_UNAVAILABLE", f"Request {id_text(target)} does not support file writes")
            self._runner.begin()
            request.ready.wait(SHUTDOWN_GRACE)
        if request is None or request.run is None:
            raise RequestError("REQUEST_NOT_FOUND", f"No active request for id {id_text(target)}")
        run = request.run
        if method == "state:update":
            run.update_state(path, given.get("value"), given.get("labels"))
            self._answers.result(request_id, {"requestId": target, "path": path})
            return
        from mlld_sdk.transport.embedded.server.signing import write_signed

        run.admit(os.path.normpath(os.path.join(run.folder, path)))
        written = write_signed(run.folder, path, given["content"], run.request.path or "")
        self._answers.result(request_id, written)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing. Unlike `SIG_IGN` this is not passed on to children."""
    del number, frame
