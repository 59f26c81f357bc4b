"""Talking to an engine: requests, deadlines, and giving up."""

from __future__ import annotations

import threading
from _thread import get_ident
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from mlld_sdk.base.durations import FOREVER, seconds
from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Sink
from mlld_sdk.transport import outcomes
from mlld_sdk.transport.call import Call, OnEvents, Probe, new_request_id
from mlld_sdk.transport.child import Child
from mlld_sdk.transport.errors import EngineAborted, EngineExit, EngineOverloaded, ForkedProcess
from mlld_sdk.transport.inline_reader import Leading
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.reactor import Reactor, ReactorTimer
from mlld_sdk.transport.wire import EngineReply, cancel_line, encode_request

__all__ = ["Conversation"]

_RETRY = 0.025
_BURST = 1e-5
_EMPTY = EngineReply(b'{"id":0,"result":null}')
CallT = TypeVar("CallT", bound=Call)


class Conversation(Leading):
    """The half of an engine that talks: what is in flight, until when, and what happens when nobody waits any more."""

    def __init__(
        self, child: Child, *, exclusive: bool, label: str, limits: EngineLimits, reactor: Reactor, env: Env, sink: Sink
    ) -> None:
        super().__init__(child, label=label, limits=limits, reactor=reactor, env=env, sink=sink)
        self.exclusive = exclusive
        self._lock = threading.Lock()
        self._forked = False
        self._tainted = False
        self._retires_when_tainted = False
        self._exit: EngineExit | None = None
        self._because: Callable[[], MlldError] | None = None
        self._last_submitted = -FOREVER
        self._next_deadline = FOREVER
        self._deadline_timer: ReactorTimer | None = None
        self._ladder: list[ReactorTimer] = []

    def _end_for(self, call: Call) -> None:
        """End an exclusive engine because of one call, unless that has got its answer in the meantime."""
        raise NotImplementedError

    def be_shared(self, shared: bool) -> None:
        """Say whether requests of several are to come, or of one owner again; while none is in flight.

        A shared engine in which a script may go on unseen retires by itself.
        """
        self.exclusive = not shared
        self._retires_when_tainted = shared

    def submit(
        self,
        method: str,
        params: Any = None,
        *,
        timeout: float | timedelta | None,
        on_events: OnEvents | None = None,
    ) -> Call:
        """Send a request and return its future. Never blocks.

        The deadline counts from now and covers everything, the writing too; `None` means there is none.

        Raises:
            UnserialisableParams: The params cannot be said in JSON.
            EngineOverloaded: Refused by `EngineLimits`; nothing was sent.
            EngineClosed, EngineDied: There is no engine any more.
            ForkedProcess: The engine belongs to another process.
        """
        if self._retired:
            raise self._refusal()
        call = self._admit(method, params, timeout, on_events, Call)
        if self._lent and self._lent == self._owner and len(self._pending) > 1 and call.deadline >= self._next_deadline:
            self._leave(call._line)  # nothing else is to be seen to: the shortest way when many are in flight
        else:
            self._send(call)
        return call

    def call(
        self,
        method: str,
        params: Any = None,
        *,
        timeout: float | timedelta | None,
        on_events: OnEvents | None = None,
    ) -> EngineReply:
        """Send a request and wait for its answer: the fast way for a caller with nothing else in flight.

        Such a caller reads the engine's pipe itself, which saves two changes of thread; `on_events` is then called on
        the caller's thread.
        """
        if self._pending or self._retired or self._reactor.ident == get_ident() or not self._take_read_lock():
            return self.submit(method, params, timeout=timeout, on_events=on_events).result()
        try:
            call = self._admit(method, params, timeout, on_events, Call)
        except BaseException:
            self._release_read_lock()
            raise
        self._lead(call, None, send=True, lend=False)
        return call.result()

    def probe(self, timeout: float | timedelta = 5.0) -> Probe:
        """Ask the engine for a sign of life that needs no interpreter.

        The call ends well as soon as the engine answers anything: the extended protocol says who it is, a live engine
        that it does not know the method (the payload is `None` then). `Probe.seconds` is how long its event loop took
        to look up. A probe that times out kills nothing.
        """
        probe = self._admit("hello", None, timeout, None, Probe)
        self._send(probe)
        return probe

    def _admit(
        self,
        method: str,
        params: Any,
        timeout: float | timedelta | None,
        on_events: OnEvents | None,
        kind: type[CallT],
    ) -> CallT:
        """Make a request pending, or refuse it."""
        if self._ending is not None:
            raise self._refusal()
        pending, limits = self._pending, self.limits
        if len(pending) >= limits.in_flight:
            raise EngineOverloaded(
                f"{self.label} has {len(pending)} requests in flight",
                hint="wait for some, or raise EngineLimits.in_flight",
            )
        if self._outgoing.backlog > limits.queued_bytes:
            raise EngineOverloaded(
                f"{self.label} does not read: {self._outgoing.backlog} bytes wait",
                hint="its event loop is busy; wait, or kill it",
            )
        request_id = new_request_id()
        line = encode_request(method, request_id, params)
        now = self._now()
        if type(timeout) is not float:
            timeout = FOREVER if timeout is None else seconds(timeout, above=-FOREVER)
        deadline = now + timeout
        call = kind(self, request_id, method, line, now, deadline, on_events)  # type: ignore[arg-type]
        if type(params) is dict and "timeoutMs" in params:
            call._has_engine_timeout = True
        if not pending:
            self._owner = get_ident()
        elif self._owner != get_ident():
            self._owner = 0
        pending[request_id] = call
        # The end may have emptied `pending` just before; then nobody else will answer this one.
        if self._finished and pending.pop(request_id, None) is not None:
            raise self._refusal()
        return call

    def _send(self, call: Call) -> None:
        if call.deadline < self._next_deadline:
            self._watch_deadline(call.deadline)
        if self._lent and self._lent == self._owner:
            self._outgoing.send(call._line, patient=False)
            return
        # What follows so closely belongs to a burst, which the reactor writes at once.
        close = call._submitted - self._last_submitted < _BURST
        self._last_submitted = call._submitted
        self._outgoing.send(call._line, patient=close or len(self._pending) > 1)
        if not self._watched:
            self._watch()

    def _control(self, target: Call, method: str, params: Any, timeout: float | timedelta | None) -> Call:
        """Send a request about another one, again and again while that one is not active yet."""
        call = self._admit(method, params, timeout, None, Call)
        if target.done():
            self._settle(call, None, outcomes.not_active(target))
            return call
        call._target = target
        call._params = params
        self._send(call)
        return call

    def _control_again(self, call: Call) -> None:
        """Repeat a control request under a new id, since the old one has been answered."""
        if self._pending.pop(call.id, None) is None:
            return
        call.id = new_request_id()
        call._line = encode_request(call.method, call.id, call._params)
        self._pending[call.id] = call
        self._outgoing.send(call._line, patient=True)

    # -- giving up

    def _watch_deadline(self, deadline: float) -> None:
        """See to it that somebody looks when this deadline passes; one timer serves all calls."""
        with self._lock:
            if deadline >= self._next_deadline:
                return
            if self._deadline_timer is not None:
                self._deadline_timer.cancel()
            self._next_deadline = deadline
            self._deadline_timer = self._reactor.call_at(deadline, self._on_deadline)

    def _on_deadline(self) -> None:
        with self._lock:
            self._next_deadline = FOREVER
            self._deadline_timer = None
        now, nearest = self._now(), FOREVER
        for call in list(self._pending.values()):
            if call.deadline <= now:
                self._give_up(call, "timeout")
            elif call.deadline < nearest:
                nearest = call.deadline
        if nearest < FOREVER:
            self._watch_deadline(nearest)

    def _give_up(self, call: Call, why: str) -> bool:
        """Begin the end of a call for which nobody waits any more; false if it has its outcome or is ending."""
        with self._lock:
            if call._given_up is not None or call.id not in self._pending:
                return call.id in self._pending
            call._given_up = why
        if not call.is_run or self._outgoing.withdraw(call._line):
            self._settle(call, None, outcomes.given_up(call))
        elif self.exclusive:
            self._outgoing.send(cancel_line(call.id), patient=False)
            self._later(self.limits.cancel_grace, lambda: self._end_for(call))
        elif why == "timeout":
            self._taint()
            self._settle(call, None, outcomes.given_up(call))
            self._outgoing.send(cancel_line(call.id), patient=False)
        else:
            self._taint()
            self._outgoing.send(cancel_line(call.id), patient=False)
            self._later(self.limits.cancel_grace, lambda: self._unconfirmed(call))
        return True

    def _unconfirmed(self, call: Call) -> None:
        self._settle(call, None, outcomes.given_up(call))

    def _taint(self) -> None:
        """Note that a script nobody waits for any more may go on; an engine that confirms a cancel runs it on too."""
        self._tainted = True
        if self._retires_when_tainted:
            self._retired = True

    def _cancel_again(self, call: Call) -> None:
        if call.id in self._pending:
            self._outgoing.send(cancel_line(call.id), patient=False)

    def _failed(self, call: Call, error: dict[str, Any]) -> None:
        """Act on an error the engine has answered a request with."""
        code = error.get("code")
        if code == "REQUEST_IN_PROGRESS":  # never true of a unique id, and if it were, the real result is still to come
            self._unknown += 1
        elif call._given_up is not None:
            if code == "REQUEST_NOT_FOUND":  # the cancel came before the script had started; it is still to run
                if not self.exclusive:
                    self._later(_RETRY, lambda: self._cancel_again(call))
            elif self.exclusive:
                self._end_for(call)
            else:
                self._settle(call, None, outcomes.given_up(call, error))
        elif isinstance(call, Probe):
            self._settle(call, _EMPTY, None)
        elif code == "REQUEST_NOT_FOUND" and call._target is not None and not call._target.done():
            self._later(_RETRY, lambda: self._control_again(call))
        else:
            told = outcomes.reported(error, call, trusted=self.command.extended)
            # An engine that is being ended gives its requests up by itself; that was us.
            gave_up = isinstance(told, EngineAborted) and self._ending is not None
            self._settle(call, None, self._refusal(call) if gave_up else told)

    def _end_of(self, call: Call) -> MlldError:
        if call._given_up is not None:
            return outcomes.given_up(call)
        if self._because is not None:
            return self._because()
        return self._refusal(call)

    def _refusal(self, call: Call | None = None) -> MlldError:
        if self._forked:
            return ForkedProcess(
                f"{self.label} belongs to the process this one was forked from", hint="start an engine in this process"
            )
        return outcomes.ended(
            self.label,
            self._ending or "closed",
            how=self._exit,
            fatal=self._fatal,
            heard=self._heard,
            lived=self.lived,
            stderr_tail=self._words.text,
            method=call.method if call else None,
        )

    @property
    def lived(self) -> float:
        """Seconds from its start to its end, or until now."""
        return self._now() - self._born if self._lived is None else self._lived

    def _begin_end(self, why: str) -> bool:
        """Decide why the engine ends; only the first reason counts."""
        with self._lock:
            if self._ending is not None:
                return False
            self._ending = why
        self._watch()  # it may have to write before it can end
        return True

    def _later(self, delay: float, function: Callable[[], object]) -> None:
        """Run one step of an ending on the I/O thread after a pause."""
        if not self._finished:
            self._ladder.append(self._reactor.call_at(self._now() + delay, function))
            if len(self._ladder) > self.limits.in_flight:
                del self._ladder[: self.limits.in_flight // 2]  # long fired
