"""Running the scripts of requests, each on a thread of its own, and stopping them."""

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from mlld_sdk.transport.embedded import clock
from mlld_sdk.transport.embedded.errors import ScriptFailure, UnsupportedConstruct, aborted, invalid_request
from mlld_sdk.transport.embedded.interpreter.fair_lock import FairLock
from mlld_sdk.transport.embedded.interpreter.interpreter import run_script
from mlld_sdk.transport.embedded.interpreter.processes import kill_all_children
from mlld_sdk.transport.embedded.interpreter.script_run import ScriptRequest, ScriptRun
from mlld_sdk.transport.embedded.language.parser import parse
from mlld_sdk.transport.embedded.language.syntax import ParsedScript
from mlld_sdk.transport.embedded.server import habits, params
from mlld_sdk.transport.embedded.server.answers import Answers
from mlld_sdk.transport.embedded.server.misbehaviour import Misbehaviour
from mlld_sdk.transport.embedded.server.options import EmbeddedOptions
from mlld_sdk.transport.embedded.server.wire import id_text

if TYPE_CHECKING:
    from mlld_sdk.transport.embedded.interpreter.checkpoints import CheckpointMemory

SHUTDOWN_GRACE = 2.0
ORDER_LIMIT = 30.0
PARSED_LIMIT = 64


class ActiveRequest:
    """A request whose script is being run."""

    def __init__(self, request_id: Any, before: threading.Event, *, execute: bool) -> None:
        self.id = request_id
        self.before = before  # set when the request that came before is active, or over
        self.key = params.id_key(request_id)
        self.execute = execute
        self.run: ScriptRun | None = None
        self.path: str | None = None
        self.answered = False
        self.early: ScriptFailure | None = None
        self.ready = threading.Event()
        self.done = threading.Event()


class ScriptRunner:
    """Runs scripts and answers their requests."""

    def __init__(self, options: EmbeddedOptions, answers: Answers, mischief: Misbehaviour) -> None:
        self._options = options
        self._extended = not options.like_real
        self._answers = answers
        self._mischief = mischief
        self._turn = FairLock()
        self._active: dict[Any, ActiveRequest] = {}
        self._unbegun: list[threading.Thread] = []
        self._latest = threading.Event()
        self._latest.set()
        self._lock = threading.Lock()
        self._parsed: dict[str, tuple[str, ParsedScript]] = {}

    def find(self, request_id: Any) -> ActiveRequest | None:
        """Return the request with this id if its script is being run."""
        with self._lock:
            return self._active.get(params.id_key(request_id)) if params.is_id(request_id) else None

    def alone(self) -> AbstractContextManager[None]:
        """Keep scripts from running in a `with` block, as the one thread of the real engine does."""
        return nullcontext() if self._extended else self._turn.held()

    def abort(self, request: ActiveRequest, failure: ScriptFailure) -> None:
        """Stop a request. The real engine answers at once and lets the script run on; this one answers afterwards."""
        if self._extended:
            request.early = request.early or failure
            if request.run is not None:
                request.run.abort(failure)
            return
        with self._turn.held():
            if request.run is not None and not request.answered:
                request.run.abort(failure)
                self._fail(request, failure)
                self._after_failure(failure)

    def end(self) -> int:
        """Abort what is running and return the exit code."""
        self.begin()
        with self._lock:
            active = list(self._active.values())
        for request in active:
            self.abort(request, aborted())
        if not self._extended:
            return 1 if active and not self._options.survive else 0
        deadline = clock.now() + SHUTDOWN_GRACE
        for request in active:
            request.done.wait(max(0.0, deadline - clock.now()))
        return 0

    def kill_children(self) -> None:
        """Stop all scripts and their children without answering."""
        for request in list(self._active.values()):
            if request.run is not None:
                request.run.abort(aborted())
        if self._extended:  # a command that is being started is not known to its run yet
            kill_all_children()

    def start(self, request_id: Any, method: str, given: Any) -> None:
        """Run the script of a `process` or `execute` request on a thread of its own, from the next `begin` on."""
        request = ActiveRequest(request_id, self._latest, execute=method == "execute")
        self._latest = request.ready
        if self._extended:
            with self._lock:
                self._active[request.key] = request
        thread = threading.Thread(
            target=self._run_request, args=(request, given), name=f"request-{id_text(request_id)}", daemon=True
        )
        self._unbegun.append(thread)

    def begin(self) -> None:
        """Begin the scripts that were started.

        A cancel that arrived together with a request is read before its script begins (XP-26). The real engine reads
        all lines of one piece before it goes on, too.
        """
        while self._unbegun:
            self._unbegun.pop(0).start()

    def _run_request(self, request: ActiveRequest, given: Any) -> None:
        turn = FairLock() if self._extended else self._turn
        try:
            with turn.held():
                self._run_guarded(request, given, turn)
        finally:
            request.ready.set()
            request.done.set()

    def _run_guarded(self, request: ActiveRequest, given: Any, turn: FairLock) -> None:
        started = False
        try:
            wanted, parse_ms, script, cached = self._load(request, given)
            timeout = params.timeout_of(given, extended=self._extended, execute=request.execute)
            report = partial(self._answers.event, request.id)
            run = ScriptRun(wanted, report, turn, kill_children=self._extended)
            self._activate(request, run, turn)
            started = True
            payload = self._run_script(request, run, script, timeout)
            if request.execute or self._extended:
                payload["metrics"] = self._metrics(run, parse_ms, cached=cached)
            if run.abort_error is None:
                event = {"type": "execution:complete", "result": payload, "timestamp": clock.milliseconds()}
                self._answers.event(request.id, event)
                self._finish(request, payload)
            elif self._extended:
                self._fail(request, run.abort_error)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the client must get its one result
            self._fail(request, fault)
            if started and isinstance(fault, ScriptFailure) and not isinstance(fault, UnsupportedConstruct):
                self._after_failure(fault)

    def _load(self, request: ActiveRequest, given: Any) -> tuple[ScriptRequest, float, ParsedScript, bool]:
        """Read parameters and script; return them with the milliseconds that took and whether it was parsed before."""
        begin = clock.now()
        if request.execute:
            path = request.path = params.execute_path(given)
            wanted = params.execute_request(given, _read_script(path), path)
        else:
            wanted = params.process_request(given)
            path = ""
            request.path = wanted.path
        if params.is_markdown(given, request.path, execute=request.execute):
            raise UnsupportedConstruct("markdown mode", 1)
        known = self._parsed.get(path)
        cached = known is not None and known[0] == wanted.script
        script = known[1] if known is not None and cached else self._parse(wanted.script, request.path)
        if request.execute and not cached:
            while len(self._parsed) >= PARSED_LIMIT:
                self._parsed.pop(next(iter(self._parsed)))
            self._parsed[path] = (wanted.script, script)
        parse_ms = (clock.now() - begin) * 1000
        if self._extended:
            wanted = wanted._replace(
                plan=params.cache_plan(given, wanted.path),
                confined=params.confined(given),
                unanswered=params.unanswered(given),
            )
        elif isinstance(given, dict) and params.ON_COMMAND_FAILURE in given:
            raise invalid_request(f"this engine takes no {params.ON_COMMAND_FAILURE}")
        return wanted, parse_ms, script, cached

    @staticmethod
    def _parse(text: str, path: str | None) -> ParsedScript:
        try:
            return parse(text)
        except ScriptFailure as failure:
            if failure.code == "PARSE_ERROR" and path is not None:
                failure.message += f" in {os.path.abspath(path)}"
            raise

    def _activate(self, request: ActiveRequest, run: ScriptRun, turn: FairLock) -> None:
        """Make a request reachable for control messages; the real engine takes its time, and does it in their order."""
        if not self._extended:
            with turn.pause():
                clock.sleep(habits.ACTIVATION_DELAY)
                request.before.wait(ORDER_LIMIT)
            with self._lock:
                self._active[request.key] = request
        request.run = run
        request.ready.set()
        if request.early is not None:
            run.abort(request.early)

    def _run_script(
        self, request: ActiveRequest, run: ScriptRun, script: ParsedScript, timeout: float | None
    ) -> dict[str, Any]:
        timer = None
        if timeout is not None:
            failure = ScriptFailure("The request ran out of time", "TIMEOUT") if self._extended else aborted()
            timer = threading.Timer(timeout, self.abort, (request, failure))
            timer.daemon = True
            timer.start()
        try:
            run_script(script, run, partial(self._open_memory, run, script.resume))
        finally:
            if timer is not None:
                timer.cancel()
        return run.result()

    def _open_memory(self, run: ScriptRun, resume: str | None) -> "CheckpointMemory":
        from mlld_sdk.transport.embedded.interpreter.checkpoints import CheckpointMemory

        mischief = self._mischief
        return CheckpointMemory(
            run, resume, announces=self._extended, before_body=mischief.step, after_store=mischief.stored
        )

    def _metrics(self, run: ScriptRun, parse_ms: float, *, cached: bool) -> dict[str, Any]:
        total = (clock.now() - run.started) * 1000
        return {
            "totalMs": round(total + parse_ms, 3),
            "parseMs": round(parse_ms, 3),
            "evaluateMs": round(total, 3),
            "cacheHit": cached,
            "effectCount": len(run.effects),
            "stateWriteCount": len(run.state_writes),
        }

    def _fail(self, request: ActiveRequest, fault: Exception) -> None:
        self._finish(request, self._answers.error(fault, request.path, execute=request.execute))

    def _finish(self, request: ActiveRequest, payload: dict[str, Any]) -> None:
        """Send the one result of a request."""
        with self._lock:
            if request.answered:
                return
            request.answered = True
            if self._active.get(request.key) is request:
                del self._active[request.key]
        self._answers.result(request.id, payload)

    def _after_failure(self, failure: ScriptFailure) -> None:
        """Die of a failed script, as the real engine does, or warn that one should have."""
        if self._extended:
            return
        if self._options.survive:
            habits.last_words(habits.WARNING.format(pid=os.getpid(), message=failure.message))
            return
        habits.last_words(habits.UNHANDLED.format(message=failure.message))
        os._exit(1)


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
