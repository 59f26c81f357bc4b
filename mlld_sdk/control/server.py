"""The runtime's side of the control socket: a few threads that answer requests from the runtime's public methods."""

import contextlib
import errno
import fcntl
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.agents.handles import AgentHandle, Named
from mlld_sdk.agents.services import Services
from mlld_sdk.base.durations import Deadline, pause
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, MlldError
from mlld_sdk.base.events import Event
from mlld_sdk.base.folders import private_folder
from mlld_sdk.base.texts import printable, text_of_error
from mlld_sdk.control import protocol as p
from mlld_sdk.control.places import ClientPlaces
from mlld_sdk.engines.pool import EnginePoolStatus
from mlld_sdk.journal import Journal
from mlld_sdk.journal.records import RunRecord, StepRecord
from mlld_sdk.supervision.errors import ChildRunning
from mlld_sdk.supervision.snapshot import NodeView, walk
from mlld_sdk.supervision.verdict import Verdict
from mlld_sdk.telemetry.bus import Bus
from mlld_sdk.telemetry.history import History
from mlld_sdk.telemetry.prometheus import metrics_of
from mlld_sdk.transport.processes import rss_of

CONNECTIONS = 32
"""Clients at once. For one more, one without a request at work makes room; if all have one, it waits `TIMEOUT`."""

SLOW = 24
"""Requests at once that wait for news or operate something; the other places are for those that only look."""

BUSY = p.Answer(
    code="BUSY", message="too many clients are at work at this moment", hint="end some that follow events, or try later"
)
"""What one more is told."""

LONGEST_WAIT = 30.0

TURN = 10.0
"""Seconds in which those that start at the same moment have to be done with opening their sockets."""

TURN_AGAIN = 0.01

HINTS = {
    errno.EADDRINUSE: "another runtime of this name is running in this process: give this one another name",
    errno.EAGAIN: "another process has held the folder for 10 s while it opens its own: see what it does (`lsof`)",
}
"""What to do when a socket cannot be opened."""

ACCEPT_AGAIN = 0.1
"""Seconds until the next try when the system could not hand out a connection."""


class RuntimeView(Protocol):
    """A running runtime, as far as it is looked at and operated from outside."""

    name: str
    env: Env
    bus: Bus
    history: History

    @property
    def journal(self) -> Journal:
        """The runs."""

    @property
    def services(self) -> Services:
        """What the agents share."""

    def __getitem__(self, name: str) -> Any:
        """Find an agent, a pool or any other place."""

    def agent(self, name: str) -> AgentHandle:
        """Find an agent."""

    def snapshot(self) -> NodeView:
        """Take a picture of the tree."""

    def tree(self) -> str:
        """Print the tree."""

    def supervisors(self) -> list[ActorRef[Any]]:
        """List the supervisors that run."""

    def missing(self) -> Sequence[object]:
        """List the agents that runs wait for and that nobody has."""

    def verdict(self) -> Verdict:
        """Return how it is, and what is wrong."""

    def wait(self, timeout: float | timedelta | None) -> object:
        """Wait for its end and return how it ended, or `None` when it has not."""

    def pause(self, path: str, reason: str = "") -> None:
        """Stop what is at a place and keep it stopped."""

    def resume(self, path: str) -> None:
        """Start what was paused again."""

    def restart(self, path: str, reason: str = "") -> None:
        """Stop what is at a place and start it again."""


class OperatorActed(Event, frozen=True, kw_only=True, tag="operator.acted"):
    """Something was done to the runtime from outside.

    Attributes:
        what: What was done.
        subject: To which run, agent or place.
        reason: Why, as given.
        user: Id of the user.
    """

    what: str
    subject: str
    reason: str
    user: int


class ControlServer:
    """Listens on a unix socket that only this user may open, and checks who it is all the same."""

    def __init__(self, runtime: RuntimeView, path: Path) -> None:
        self.path = path
        self._runtime = runtime
        self._places = ClientPlaces(CONNECTIONS)
        self._slow = threading.BoundedSemaphore(SLOW)
        self._closing = threading.Event()
        self._listener = _listen(path)
        self._inode = path.stat().st_ino
        self._thread = threading.Thread(target=self._accept, name=f"{runtime.name}-control", daemon=True)
        self._thread.start()
        _here.add(self)

    def abandon(self) -> None:
        """Close what a fork has copied, and change nothing for the process that listens."""
        for copied in (self._listener, *self._places.clients()):
            copied.close()

    def close(self) -> None:
        """Stop listening, end every connection, and remove the socket."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._places.close()
        self._thread.join(5)
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:  # a successor's socket is not ours to remove
                self.path.unlink()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed; or no file or memory is left, which may pass
                self._closing.wait(ACCEPT_AGAIN)
                continue
            if not self._places.take(connection, p.TIMEOUT):
                with contextlib.suppress(OSError), connection:
                    p.send(connection, BUSY)
                continue
            server = threading.Thread(target=self._serve, args=(connection,), name="control-client", daemon=True)
            try:
                server.start()
            except RuntimeError:  # no thread is left
                self._forget(connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            user = p.peer_of(connection)[1]
            if user not in (None, os.getuid()):
                p.send(connection, p.Answer(code="WRONG_USER", message="this runtime belongs to another user"))
                return
            while self._serve_one(connection, user or os.getuid()):
                pass
        except (OSError, p.ControlError):
            return  # the client is gone, too slow, or talks nonsense: nothing here depends on it
        finally:
            self._forget(connection)

    def _serve_one(self, connection: socket.socket, user: int) -> bool:
        """Answer one request; `False` when there is none any more, or the client has made room for another."""
        connection.settimeout(p.TIMEOUT)
        body = p.receive(connection, p.TIMEOUT)
        if body is None or not self._places.work(connection):
            return False
        try:
            answer = _framed(self._answer(body, user))
        finally:
            self._places.rest(connection)
        connection.settimeout(p.TIMEOUT)
        connection.sendall(answer)
        return True

    def _forget(self, connection: socket.socket) -> None:
        self._places.leave(connection)
        connection.close()

    def _answer(self, body: bytes, user: int) -> p.Answer:
        try:
            request = _decode_request(body)
        except (msgspec.MsgspecError, RecursionError) as error:
            return p.Answer(code="MALFORMED", message=f"no such request: {error}", hint="are both of the same version?")
        slow = isinstance(request, p.Operate | p.Evaluate) or (isinstance(request, p.AskEvents) and request.wait > 0)
        if slow and not self._slow.acquire(blocking=False):
            return BUSY
        try:
            return p.Answer(data=_WORK[type(request)](self._runtime, request, user))
        except MlldError as error:
            return p.Answer(code=error.code, message=error.message, hint=error.hint)
        except RecursionError:
            return p.Answer(code="TOO_DEEP", message="what was sent is nested too deeply", hint="nest it less deeply")
        except Exception as error:  # noqa: BLE001 - a request that fails must not take the server down
            return p.Answer(code="INTERNAL", message=text_of_error(error))
        finally:
            if slow:
                self._slow.release()


def _framed(answer: p.Answer) -> bytes:
    """Return an answer as it is sent, or why it cannot be."""
    try:
        return p.frame(answer)
    except p.ControlError as error:
        return p.frame(p.Answer(code=error.code, message=error.message, hint=error.hint))


_here: "weakref.WeakSet[ControlServer]" = weakref.WeakSet()


def _forked() -> None:
    """Let go of what a forked child has inherited, so that a socket does not outlive the process that answers at it."""
    for server in list(_here):
        server.abandon()


os.register_at_fork(after_in_child=_forked)


def _listen(path: Path) -> socket.socket:
    private_folder(path.parent)
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _turn(path.parent):
            _sweep(path)
            before = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        hint = HINTS.get(error.errno or 0, "set MLLD_OTP_RUNTIME_DIR to a folder of this user's with a short path")
        what = f"the control socket {path} cannot be opened: {error}"
        raise p.ControlError(what, hint=f"{hint}, or control=False") from error
    return listener


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Let one process at a time look for dead sockets and open its own, which looks dead until it listens."""
    lock, deadline = os.open(folder, os.O_RDONLY | os.O_CLOEXEC), Deadline(TURN)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline.is_over:
                    raise
                pause(TURN_AGAIN)
        yield
    finally:
        os.close(lock)


def _sweep(mine: Path) -> None:
    """Remove the sockets of processes that are gone, and the one an earlier process of the same id has left."""
    for left in p.sockets():
        if (left.path == mine or not _lives(left.pid)) and not p.is_listening(left.path):
            left.path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _who(runtime: RuntimeView, _: p.AskWho, __: int) -> Any:
    path = runtime.journal.store_status().path
    return {"runtime": runtime.name, "pid": os.getpid(), "store": path and os.path.realpath(path)}


def _metrics(runtime: RuntimeView, _: p.AskMetrics, __: int) -> Any:
    metrics = metrics_of(runtime)
    if metrics is None:
        raise p.Refused("this process exports no metrics", code="NO_METRICS", hint="mlld_sdk.telemetry.prometheus")
    return {"families": metrics.families()}


def _tree(runtime: RuntimeView, _: p.AskTree, __: int) -> Any:
    verdict, tree = runtime.verdict(), runtime.snapshot()
    paths = {node.path for node in walk(tree)} if verdict.concerns else set()
    end = runtime.wait(0)
    named = [
        one
        for one in verdict.concerns
        if one.path not in paths or one.word == "maintenance" or (end and one.path == runtime.name)
    ]
    beside = [printable(f"{one.path}: {one.why}") for one in named]
    text = "\n".join([str(verdict), *beside, "", runtime.tree()])
    return {"verdict": verdict, "text": text, "tree": tree, "end": end, "missing": runtime.missing()}


def _top(runtime: RuntimeView, _: p.AskTop, __: int) -> Any:
    engines = [
        {"engine": one.engine, "pid": one.pid, "since": one.at, "rss": rss_of(one.pid)}
        for one in runtime.history.engines()
    ]
    pools = {name: pool.status() for name, pool in runtime.services.engine_pools().items()}
    nodes = {node.path: node for node in walk(runtime.snapshot())}
    shown = [(name, nodes.get(name), pools.get(name)) for name in {**pools, **nodes}]
    agents = [
        {
            "path": name,
            "state": state,
            "busy": pool.busy if pool else 0,
            "idle": pool.idle if pool else 0,
            "waiting": pool.waiting if pool else 0,
            "runs": node and node.backlog,
        }
        for name, node, pool in shown
        if (state := _at_work(node, pool))
    ]
    status = runtime.journal.status()
    return {
        "engines": engines,
        "agents": agents,
        "runs": status.runs,
        "journal": status.store,
        "zombies": runtime.services.system.zombies.list(),
        "end": (end := runtime.wait(0)) and str(end),
    }


def _at_work(node: NodeView | None, pool: EnginePoolStatus | None) -> str:
    """Return the state of an agent or a pool in a word; an empty one if there is nothing to say about it."""
    if node is not None and node.info is not None and node.info.off_duty:
        return node.info.off_duty
    if pool is not None and pool.busy:
        return "working"
    runs = None if node is None else node.backlog
    if runs is not None and (runs.pending or runs.running or runs.parked or not runs.known):
        return "working" if runs.running else "idle" if node is None or node.state == "running" else node.state
    return "idle" if pool is not None and (pool.idle or pool.waiting) else ""


def _why(runtime: RuntimeView, ask: p.AskWhy, _: int) -> Any:
    crash = runtime.history.crash(ask.subject)
    if crash is not None:
        return {"crashes": [crash]}
    path = ask.subject if ask.subject.split("/", 1)[0] == runtime.name else f"{runtime.name}/{ask.subject}"
    node = next((node for node in walk(runtime.snapshot()) if node.path == path), None)
    crashes = runtime.history.crashes(path, limit=10)
    if node is None and not crashes:
        hint = "of a run tells `runs show`" if ask.subject.startswith("run-") else "see `tree` and `crashes`"
        raise p.Refused(f"there is no place and no crash {ask.subject!r}", code="NOT_FOUND", hint=hint)
    return {"place": node, "crashes": crashes}


def _events(runtime: RuntimeView, ask: p.AskEvents, _: int) -> Any:
    history = runtime.history
    after = min(ask.after, history.last) if ask.after >= 0 else max(0, history.last + ask.after)
    found = history.events(after)
    if not found and ask.wait > 0:
        found = history.wait(after, min(ask.wait, LONGEST_WAIT, p.TIMEOUT - 5))
    return {"events": found, "last": history.last}


def _crashes(runtime: RuntimeView, ask: p.AskCrashes, _: int) -> Any:
    oldest = None if ask.since is None else time.time() - ask.since  # noqa: TID251 - compared with records of the past
    found = runtime.history.crashes(ask.path, limit=ask.limit)
    return {"crashes": [crash for crash in found if oldest is None or crash.at >= oldest]}


def _runs(runtime: RuntimeView, ask: p.AskRuns, _: int) -> Any:
    if ask.before is not None:
        runtime.journal.run(ask.before)  # raises if there is none
    kind = None if ask.agent is None else _kind(runtime, ask.agent)
    states: Any = ask.states
    found = runtime.journal.runs(kind=kind, states=states, before=ask.before, newest_first=True, limit=ask.limit)
    return {"runs": [_run_row(run) for run in found]}


def _kind(runtime: RuntimeView, agent: str) -> str:
    """Return the path under which the runs of an agent are filed, also of one that is not declared any more."""
    try:
        return runtime.agent(agent).name
    except MlldError:
        known = [node.path for node in walk(runtime.snapshot()) if agent in (node.path, node.name)]
        path = agent if agent.split("/", 1)[0] == runtime.name else f"{runtime.name}/{agent}"
        path = known[0] if len(known) == 1 else path  # of a tree that has ended, say
        if not runtime.journal.runs(kind=path, limit=1):
            raise
        return path


def _run(runtime: RuntimeView, ask: p.AskRun, _: int) -> Any:
    run, outcome = runtime.journal.run(ask.run_id), runtime.journal.outcome(ask.run_id)
    steps = [_step_row(one) for one in runtime.journal.steps(run.id)]
    return {"run": _run_row(run), "outcome": outcome, "steps": steps}


def _retry(runtime: RuntimeView, ask: p.RetryRun, user: int) -> Any:
    run = runtime.journal.retry(ask.run_id, rerun_interrupted=ask.rerun_interrupted)
    _acted(runtime, "retry", ask.run_id, "", user)
    runtime.services.poke(run.kind)
    return {"run": _run_row(run)}


def _cancel(runtime: RuntimeView, ask: p.CancelRun, user: int) -> Any:
    run = runtime.journal.cancel(ask.run_id, ask.reason)
    _acted(runtime, "cancel", ask.run_id, ask.reason, user)
    return {"run": _run_row(run)}


def _resolve(runtime: RuntimeView, ask: p.ResolveStep, user: int) -> Any:
    step = runtime.journal.resolve_step(ask.run_id, ask.position, ask.value)
    _acted(runtime, "resolve", ask.run_id, f"step {ask.position} ({step.name})", user)
    return {"step": _step_row(step)}


def _submit(runtime: RuntimeView, ask: p.SubmitRun, user: int) -> Any:
    handle = runtime.agent(ask.agent).run(ask.payload, key=ask.key)
    _acted(runtime, "submit", handle.id, "", user)
    return {"run_id": handle.id}


def _drain(runtime: RuntimeView, path: str) -> None:
    found = runtime[path]
    if not isinstance(found, Named):
        raise ConfigurationError(
            f"{path} has no engines", hint="agents, pools and clients can be drained; `pause` stops any place"
        )
    found.drain(p.TIMEOUT - 5)


def _operate(runtime: RuntimeView, ask: p.Operate, user: int) -> Any:
    work: dict[str, Callable[[str, str], object]] = {
        "pause": runtime.pause,
        "resume": lambda path, _: runtime.resume(path),
        "restart": runtime.restart,
        "drain": lambda path, _: _drain(runtime, path),
    }
    try:
        work[ask.what](ask.path, ask.reason)
    except ChildRunning as error:
        raise p.Refused(error.message, code=error.code, hint="to start it afresh: `restart`") from error
    _acted(runtime, ask.what, ask.path, ask.reason, user)
    return {"text": f"{ask.what}: {ask.path}"}


def _evaluate(runtime: RuntimeView, ask: p.Evaluate, user: int) -> Any:
    _acted(runtime, "evaluate", ask.agent, "", user)
    return {"output": runtime[ask.agent].process(ask.script, timeout=p.TIMEOUT - 5)}


def _acted(runtime: RuntimeView, what: str, subject: str, reason: str, user: int) -> None:
    runtime.bus.emit(OperatorActed(at=runtime.env.wall(), what=what, subject=subject, reason=reason, user=user))


def _fields(record: RunRecord | StepRecord, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


def _run_row(run: RunRecord) -> dict[str, Any]:
    return {
        **_fields(run, "id", "kind", "state", "created", "updated", "attempt"),
        "owner": run.owner.name if run.owner else None,
        "deaths": [death.reason for death in run.deaths],
        "suspected": len(run.suspected),
        "quarantine": run.quarantine > 0,
        "parked": run.parked.message if run.parked else None,
    }


def _step_row(step: StepRecord) -> dict[str, Any]:
    row = _fields(step, "position", "name", "asked", "state", "final", "attempts", "started", "ended")
    return {**row, "error": step.error.message if step.error else None}


_WORK: dict[type, Callable[[RuntimeView, Any, int], Any]] = {
    p.AskWho: _who,
    p.AskMetrics: _metrics,
    p.AskTree: _tree,
    p.AskMissing: lambda runtime, _, __: {"missing": runtime.missing()},
    p.AskTop: _top,
    p.AskWhy: _why,
    p.AskEvents: _events,
    p.AskCrashes: _crashes,
    p.AskRuns: _runs,
    p.AskRun: _run,
    p.RetryRun: _retry,
    p.CancelRun: _cancel,
    p.ResolveStep: _resolve,
    p.SubmitRun: _submit,
    p.Operate: _operate,
    p.Evaluate: _evaluate,
}

_decode_request: Callable[[bytes], p.Request] = msgspec.json.Decoder(reduce(or_, _WORK)).decode
