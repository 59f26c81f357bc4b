"""The engine's main loop: reads requests, runs scripts on threads of their own, answers."""

import errno
import os
import signal
import threading
from types import FrameType
from typing import Any, NoReturn

from mlld_sdk.transport.checkpoint_cache import CheckpointNotFound
from mlld_sdk.transport.embedded.clock import Clock
from mlld_sdk.transport.embedded.errors import Aborted, RequestError, ScriptFailure, UnsupportedConstruct
from mlld_sdk.transport.embedded.interpreter.checkpoints import CachePlan, CheckpointMemory
from mlld_sdk.transport.embedded.interpreter.fair_lock import FairLock
from mlld_sdk.transport.embedded.interpreter.interpreter import run_script
from mlld_sdk.transport.embedded.interpreter.script_run import ScriptRequest, ScriptRun
from mlld_sdk.transport.embedded.language.parser import parse
from mlld_sdk.transport.embedded.language.syntax import CheckpointStatement, Literal, ParsedScript
from mlld_sdk.transport.embedded.server import habits
from mlld_sdk.transport.embedded.server.misbehaviour import Misbehaviour, hang
from mlld_sdk.transport.embedded.server.options import EmbeddedOptions
from mlld_sdk.transport.embedded.server.params import (
    cache_plan,
    execute_job,
    execute_path,
    id_key,
    is_id,
    is_markdown,
    process_job,
    timeout_of,
)
from mlld_sdk.transport.embedded.server.wire import (
    LineWriter,
    NotJson,
    error,
    event,
    id_text,
    read_json,
    read_lines,
    result,
)

VERSION = "0.1.0"
IMITATED = "2.0.5"
FEATURES = (
    "full-values",
    "private-descriptors",
    "checkpoint",
    "checkpoint-events",
    "survives-failures",
    "metrics",
    "signatures",
    "file-write",
    "streaming",
    "state-update",
    "cancel-at-steps",
)
SHUTDOWN_GRACE = 2.0
PARSED_LIMIT = 64


class ShutdownRequested(BaseException):  # not an error, and for nobody to catch on its way: SIGTERM or SIGINT arrived
    """The engine was asked to end."""


class ActiveRequest:
    """A request that is being run."""

    def __init__(self, request_id: Any, *, execute: bool) -> None:
        self.id = request_id
        self.execute = execute
        self.run: ScriptRun | None = None
        self.path: str | None = None
        self.answered = False
        self.early: ScriptFailure | None = None
        self.ready = threading.Event()
        self.done = threading.Event()


class EmbeddedServer:
    """One engine process."""

    def __init__(self, options: EmbeddedOptions, clock: Clock) -> None:
        self.options = options
        self.clock = clock
        self.extended = not options.like_real
        self.wire = LineWriter(options.response_fd, self._unheard)
        self.mischief = Misbehaviour(options.misbehave)
        self._turn = FairLock()
        self._active: dict[Any, ActiveRequest] = {}
        self._lock = threading.Lock()
        self._parsed: dict[str, tuple[str, ParsedScript]] = {}

    # -- life

    def serve(self) -> int:
        """Answer until the requests end or a signal comes, and return the exit code."""
        self.mischief.start()
        wake = self._install_signals()
        try:
            for line in read_lines(self.options.request_fd, wake):
                self.mischief.line_read()
                if line:
                    self._line(line)
        except ShutdownRequested:
            return self._end()
        if self.mischief.asks("ignore-eof"):
            hang()
        return self._end()

    def _install_signals(self) -> int:
        """Let SIGTERM and SIGINT end the engine; give the descriptor that wakes the reader for them."""

        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, _ignore)
            raise ShutdownRequested

        handler = _ignore if self.mischief.asks("ignore-sigterm") else stop
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        return wake

    def _end(self) -> int:
        """Abort what is running and say how to exit."""
        with self._lock:
            active = list(self._active.values())
        for request in active:
            self._abort(request, Aborted())
        if self.extended:
            deadline = self.clock.now() + SHUTDOWN_GRACE
            for request in active:
                request.done.wait(max(0.0, deadline - self.clock.now()))
            return 0
        return 1 if active and not self.options.survive else 0

    def _unheard(self) -> NoReturn:
        """Nobody reads the answers any more: stop everything and go."""
        for request in list(self._active.values()):
            if request.run is not None:
                request.run.abort(Aborted())
        os._exit(1 if self.options.like_real else 0)

    # -- reading

    def _line(self, line: str) -> None:
        try:
            request = read_json(line)
        except NotJson as fault:
            self._refuse(None, "INVALID_JSON", str(fault))
            return
        if request is None and not self.extended:
            if self.options.survive:
                return
            habits.last_words(habits.NULL_CRASH)
            os._exit(1)
        if not isinstance(request, dict):
            self._refuse(None, "INVALID_REQUEST", "Request method is required")
            return
        self._dispatch(request)

    def _dispatch(self, request: dict[str, Any]) -> None:
        method = request.get("method")
        request_id = request.get("id")
        if not is_id(request_id):
            request_id = None
        params = request.get("params")
        if not isinstance(method, str) or not method:
            self._refuse(request_id, "INVALID_REQUEST", "Request method is required")
        elif method == "cancel":
            self._cancel(request_id)
        elif request_id is None:
            self._refuse(None, "INVALID_REQUEST", "Request id is required")
        elif method in ("state:update", "file:write"):
            self._control(method, request_id, params)
        elif id_key(request_id) in self._active:
            self._refuse(request_id, "REQUEST_IN_PROGRESS", f"Request {id_text(request_id)} is already active")
        elif method in ("process", "execute"):
            self._start(request_id, method, params)
        else:
            self._answer_at_once(method, request_id, params)

    def _answer_at_once(self, method: str, request_id: Any, params: Any) -> None:
        try:
            if method == "hello" and self.extended:
                payload: Any = {"value": self._hello()}
            elif method == "analyze":
                from mlld_sdk.transport.embedded.server.analysis import analyze

                payload = analyze(params)
            elif method in ("sig:sign", "sig:verify", "sig:sign-content", "fs:status"):
                from mlld_sdk.transport.embedded.server.signing import answer

                payload = answer(method, params, self.clock)
            else:
                self._refuse(request_id, "METHOD_NOT_FOUND", f"Method '{method}' is not supported")
                return
        except Exception as fault:  # noqa: BLE001 - a request that cannot be served must not cost the others the engine
            payload = {"error": self._error_payload(_blamed(fault), None, execute=False)}
        self._send_result(request_id, payload)

    def _hello(self) -> dict[str, Any]:
        return {
            "engine": "embedded",
            "version": VERSION,
            "mlld": IMITATED,
            "protocol": 1,
            "features": list(FEATURES),
        }

    # -- control of running requests

    def _find(self, request_id: Any) -> ActiveRequest | None:
        with self._lock:
            return self._active.get(id_key(request_id)) if is_id(request_id) else None

    def _cancel(self, request_id: Any) -> None:
        if request_id is None:
            self._refuse(None, "INVALID_REQUEST", "Cancel id is required")
            return
        request = self._find(request_id)
        if request is None:
            self._refuse(request_id, "REQUEST_NOT_FOUND", f"No active request for id {id_text(request_id)}")
            return
        self._abort(request, Aborted())

    def _abort(self, request: ActiveRequest, failure: ScriptFailure) -> None:
        """Stop a request. The real engine answers at once and lets the script run on; this one answers afterwards."""
        if self.extended:
            request.early = request.early or failure
            if request.run is not None:
                request.run.abort(failure)
            return
        self._turn.take()
        try:
            if request.run is not None and not request.answered:
                request.run.abort(failure)
                self._fail(request, failure)
                self._after_failure(failure)
        finally:
            self._turn.hand_on()

    def _control(self, method: str, request_id: Any, params: Any) -> None:
        if self.extended:
            self._answer_control(method, request_id, params)
            return
        # the real engine has one thread: nothing happens between a change and its answer
        self._turn.take()
        try:
            self._answer_control(method, request_id, params)
        finally:
            self._turn.hand_on()

    def _answer_control(self, method: str, request_id: Any, params: Any) -> None:
        try:
            target = self._checked_control(method, params)
            request = self._find(target)
            if request is None:
                raise RequestError("REQUEST_NOT_FOUND", f"No active request for id {id_text(target)}")
            if method == "file:write" and not request.execute:
                raise RequestError("FILE_WRITE_UNAVAILABLE", f"Request {id_text(target)} does not support file writes")
            request.ready.wait(SHUTDOWN_GRACE)
            if request.run is None:
                raise RequestError("REQUEST_NOT_FOUND", f"No active request for id {id_text(target)}")
            payload = self._do_control(method, request.run, params)
        except RequestError as fault:
            payload = error(fault.code, fault.message)
        except Exception as fault:  # noqa: BLE001 - a request that cannot be served must not cost the others the engine
            payload = {"error": self._error_payload(_blamed(fault), None, execute=False)}
        self._send_result(request_id, payload)

    @staticmethod
    def _checked_control(method: str, params: Any) -> Any:
        def refuse(text: str) -> RequestError:
            return RequestError("INVALID_REQUEST", f"{method} params{text}")

        if not isinstance(params, dict):
            raise refuse(" must be an object")
        if not is_id(params.get("requestId")):
            raise refuse(".requestId must be a string or number")
        path = params.get("path")
        if not isinstance(path, str) or not path.strip():
            raise refuse(".path must be a non-empty string")
        if method == "file:write" and not isinstance(params.get("content"), str):
            raise refuse(".content must be a string")
        return params["requestId"]

    def _do_control(self, method: str, run: ScriptRun, params: dict[str, Any]) -> dict[str, Any]:
        path = params["path"].strip()
        if method == "state:update":
            run.update_state(path, params.get("value"), params.get("labels"))
            return {"requestId": params["requestId"], "path": path}
        from mlld_sdk.transport.embedded.server.signing import write_signed

        return write_signed(run.folder, path, params["content"], run.request.path or "", self.clock)

    # -- running scripts

    def _start(self, request_id: Any, method: str, params: Any) -> None:
        self.mischief.request(self.wire.send_raw)
        request = ActiveRequest(request_id, execute=method == "execute")
        if self.extended:
            with self._lock:
                self._active[id_key(request_id)] = request
        threading.Thread(
            target=self._run_request, args=(request, params), name=f"request-{id_text(request_id)}", daemon=True
        ).start()

    def _run_request(self, request: ActiveRequest, params: Any) -> None:
        turn = FairLock() if self.extended else self._turn
        turn.take()
        try:
            self._run_guarded(request, params, turn)
        finally:
            turn.hand_on()
            request.ready.set()
            request.done.set()

    def _run_guarded(self, request: ActiveRequest, params: Any, turn: FairLock) -> None:
        started = False
        try:
            job, parse_ms, script, cached = self._load(request, params)
            plan = cache_plan(params, job.path) if self.extended else CachePlan()
            timeout = timeout_of(params, extended=self.extended, execute=request.execute)
            run = ScriptRun(
                job,
                lambda body: self._send_event(request, body),
                turn,
                self.clock,
                kill_children=self.extended,
            )
            self._activate(request, run, turn)
            started = True
            payload = self._run_script(run, script, plan, timeout, request)
            if job.metrics or self.extended:
                payload["metrics"] = self._metrics(run, parse_ms, cached=cached)
            if run.abort_error is None:
                self._send_event(
                    request, {"type": "execution:complete", "result": payload, "timestamp": run.milliseconds()}
                )
                self._finish(request, payload)
            elif self.extended:
                self._fail(request, run.abort_error)
        except RequestError as fault:
            self._finish(request, error(fault.code, fault.message))
        except CheckpointNotFound as fault:
            self._fail(request, ScriptFailure(str(fault), "CHECKPOINT_NOT_FOUND"))
        except ScriptFailure as failure:
            self._fail(request, failure)
            if started and not isinstance(failure, UnsupportedConstruct):
                self._after_failure(failure)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the client must get its one result
            self._fail(request, _blamed(fault))

    def _load(self, request: ActiveRequest, params: Any) -> tuple[ScriptRequest, float, ParsedScript, bool]:
        begin = self.clock.now()
        if request.execute:
            request.path = execute_path(params)
            job = execute_job(params, _read_script(request.path), request.path)
        else:
            job = process_job(params)
            request.path = job.path
        path = request.path
        if is_markdown(params, path, execute=request.execute):
            raise UnsupportedConstruct("markdown mode", 1)
        known = self._parsed.get(path) if request.execute and path is not None else None
        if known is not None and known[0] == job.script:
            return job, (self.clock.now() - begin) * 1000, known[1], True
        try:
            script = parse(job.script)
        except ScriptFailure as failure:
            if failure.code == "PARSE_ERROR" and path is not None:
                failure.message += f" in {os.path.abspath(path)}"
            raise
        if request.execute and path is not None:
            while len(self._parsed) >= PARSED_LIMIT:
                self._parsed.pop(next(iter(self._parsed)))
            self._parsed[path] = (job.script, script)
        return job, (self.clock.now() - begin) * 1000, script, False

    def _activate(self, request: ActiveRequest, run: ScriptRun, turn: FairLock) -> None:
        """Make a request reachable for control messages; the real engine takes its time."""
        if not self.extended:
            with turn.pause():
                threading.Event().wait(habits.ACTIVATION_DELAY)
            with self._lock:
                self._active[id_key(request.id)] = request
        request.run = run
        request.ready.set()
        if request.early is not None:
            run.abort(request.early)

    def _run_script(
        self, run: ScriptRun, script: ParsedScript, plan: CachePlan, timeout: float | None, request: ActiveRequest
    ) -> dict[str, Any]:
        timer = None
        if timeout is not None:
            failure = Aborted() if not self.extended else Aborted("The request ran out of time", "TIMEOUT")
            timer = threading.Timer(timeout, self._abort, (request, failure))
            timer.daemon = True
            timer.start()
        memory = CheckpointMemory(plan, run.request.path, script.resume, run.iso_time)
        if self.mischief:
            memory.before_body = self.mischief.step
            memory.after_store = self.mischief.stored
        try:
            memory.prepare(_checkpoint_names(script))
            run.step()
            run_script(script, run, memory, announces=self.extended)
        finally:
            if timer is not None:
                timer.cancel()
        return run.result()

    def _metrics(self, run: ScriptRun, parse_ms: float, *, cached: bool) -> dict[str, Any]:
        total = (self.clock.now() - run.started) * 1000
        return {
            "totalMs": round(total + parse_ms, 3),
            "parseMs": round(parse_ms, 3),
            "evaluateMs": round(total, 3),
            "cacheHit": cached,
            "effectCount": len(run.effects),
            "stateWriteCount": len(run.state_writes),
        }

    # -- answering

    def _fail(self, request: ActiveRequest, failure: ScriptFailure) -> None:
        self._finish(request, {"error": self._error_payload(failure, request.path, execute=request.execute)})

    def _finish(self, request: ActiveRequest, payload: Any) -> None:
        """Send the one result of a request."""
        with self._lock:
            if request.answered:
                return
            request.answered = True
            if self._active.get(id_key(request.id)) is request:
                del self._active[id_key(request.id)]
        self._send_result(request.id, payload)

    def _after_failure(self, failure: ScriptFailure) -> None:
        """Die of a failed script, as the real engine does, or warn that one should have."""
        if self.extended:
            return
        if self.options.survive:
            habits.last_words(habits.WARNING.format(pid=os.getpid(), message=failure.message))
            return
        habits.last_words(habits.UNHANDLED.format(message=failure.message))
        os._exit(1)

    def _error_payload(self, failure: ScriptFailure, path: str | None, *, execute: bool) -> dict[str, Any]:
        code, name = failure.code, failure.name
        if not self.extended:
            code = habits.flattened_code(code, failure.message, execute=execute)
            name = "ExecuteError" if execute and path is not None else name
        payload = {"code": code, "message": failure.message, "name": name}
        if execute and path:
            payload["filePath"] = path
        payload["stack"] = f"{name}: {failure.message}\n    at embedded engine {VERSION}"
        return payload

    def _refuse(self, request_id: Any, code: str, message: str) -> None:
        self._send_result(request_id, error(code, message))

    def _send_event(self, request: ActiveRequest, body: dict[str, Any]) -> None:
        if not self.extended:
            body = habits.lossy_event(body)
        self._send(event(request.id, body, extended=self.extended))

    def _send_result(self, request_id: Any, payload: Any) -> None:
        if not self.extended:
            payload = habits.lossy_result(payload)
        self._send(result(request_id, payload))

    def _send(self, message: dict[str, Any]) -> None:
        if not self.extended:
            message = habits.copy_with_losses(message)
        if not self.mischief:
            self.wire.send(message)
            return
        from mlld_sdk.transport.embedded.server.wire import write_json

        self.mischief.line_out(write_json(message) + b"\n", self.wire.send_raw)


def _blamed(fault: Exception) -> ScriptFailure:
    """Say what went wrong with one request as that request's failure."""
    if isinstance(fault, ScriptFailure):
        return fault
    if isinstance(fault, RecursionError):
        return ScriptFailure("Maximum call stack size exceeded", name="RangeError")
    if isinstance(fault, OSError):  # of the place it runs in: a working directory that is gone, a disk that is full
        name = "" if fault.filename is None else f", '{fault.filename}'"
        return ScriptFailure(f"{errno.errorcode.get(fault.errno or 0, 'EIO')}: {fault.strerror or fault}{name}")
    return ScriptFailure(f"The embedded engine is at fault: {type(fault).__name__}: {fault}")


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing. Unlike `SIG_IGN` this is not passed on to children."""
    del number, frame


def _read_script(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return file.read()
    except IsADirectoryError:
        raise ScriptFailure("EISDIR: illegal operation on a directory, read") from None
    except FileNotFoundError:
        raise ScriptFailure(f"ENOENT: no such file or directory, open '{path}'", "FILE_NOT_FOUND") from None
    except OSError as fault:
        raise ScriptFailure(f"{fault.strerror}, open '{path}'", "FILE_NOT_FOUND") from None


def _checkpoint_names(script: ParsedScript) -> list[str]:
    return [
        str(statement.name.data)
        for statement in script.statements
        if isinstance(statement, CheckpointStatement) and isinstance(statement.name, Literal)
    ]
