"""Carrying out what a supervisor decides: the only part of supervision that touches actors, timers and breakers.

Everything here runs as the supervisor, one thing at a time. Nothing blocks: starts and stops are asked for, and what
comes of them arrives as a message in the system lane.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from mlld_sdk.actors.core.cell import Cell
from mlld_sdk.actors.core.errors import AlreadyStarted, StartFailed, StartIgnored
from mlld_sdk.actors.core.exits import SHUTDOWN as SHUTDOWN_REASON
from mlld_sdk.actors.core.exits import Killed, Reason, crash
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.timers import Timer
from mlld_sdk.supervision.batch import BatchAnswers, BatchCall
from mlld_sdk.supervision.breaker import Breaker, Permit
from mlld_sdk.supervision.children import Slot
from mlld_sdk.supervision.decide import initial, step
from mlld_sdk.supervision.dynamic import initial_dynamic, step_dynamic
from mlld_sdk.supervision.effects import (
    AnswerCall,
    Arm,
    Asked,
    Disarm,
    Due,
    Effect,
    Emit,
    Ended,
    FailedToStart,
    Finish,
    Forget,
    Ignored,
    Input,
    Kill,
    ManagementRequest,
    NoProgress,
    Overdue,
    Ready,
    RequestStop,
    Start,
    Started,
    StopRequested,
    TerminateKey,
)
from mlld_sdk.supervision.errors import BreakerOpen, ChildNotFound
from mlld_sdk.supervision.exits import SHUTDOWN, ChildExit
from mlld_sdk.supervision.messages import Boot, Happened, KilledBelow, LimitDue, StartOutcome, booting, is_supervisor
from mlld_sdk.supervision.probe import idle_of
from mlld_sdk.supervision.reasons import as_exit
from mlld_sdk.supervision.restart_policy import STABLE
from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, SupervisorSpec
from mlld_sdk.supervision.state import DynamicState, StaticState
from mlld_sdk.supervision.step import World
from mlld_sdk.supervision.stop_limits import StopLimits

if TYPE_CHECKING:
    from mlld_sdk.supervision.supervisor import Supervisor

Ref = ActorRef[Any]


class Executor:
    """One incarnation of a supervisor, seen from the side of effects."""

    def __init__(self, actor: "Supervisor", spec: SupervisorSpec | DynamicSpec, boot: Boot) -> None:
        self.actor = actor
        self.boot = boot
        self.context = boot.context
        self.path = boot.path
        self.ref: Ref = actor.actor_ref
        self.cell = self.ref.cell
        self.system = actor.system
        self.env = self.system.env
        self.is_dynamic = isinstance(spec, DynamicSpec)
        self.step: Callable[[Any, list[Input], World], tuple[StaticState | DynamicState, list[Effect]]]
        self.state: StaticState | DynamicState
        if isinstance(spec, DynamicSpec):
            self.step, self.state = step_dynamic, initial_dynamic(boot.path, spec)
        else:
            self.step, self.state = step, initial(boot.path, spec)
        self.refs: dict[int, Ref] = {}
        self.keys: dict[Ref, tuple[int, int]] = {}
        self.timers: dict[int, Timer] = {}
        self.limits = StopLimits(self.system.timers, self.env.now, lambda: self.cell.post_system(LimitDue()))
        self.watches: dict[int, Timer] = {}
        self.permits: dict[int, Permit] = {}
        self.resets: dict[int, tuple[Breaker, Callable[[], object]]] = {}
        self.reports: dict[Ref, tuple[str, ...]] = {}
        self.end: Reason | None = None
        self._inbox: list[Input] = []
        self._working = False

    # -- in ------------------------------------------------------------------------------------------------------------

    def happened(self, *inputs: Input) -> None:
        """Decide about something and carry it out; called again meanwhile, it only takes note."""
        self._inbox += inputs
        if self._working:
            return
        self._working = True
        try:
            while self._inbox:
                happened, self._inbox = self._inbox, []
                self.decide(happened)
        finally:
            self._working = False
        if self.end is not None:
            self.cell.end(self.end)

    def due(self, due: Due) -> None:
        """A planned start attempt has come due: the child's breaker is asked before anything is decided."""
        self.happened(Due(due.key, due.incarnation, self.ask_breaker(due.key)))

    def decide(self, happened: list[Input]) -> None:
        """Make one step."""
        env = self.env
        world = World(env.now(), env.wall(), env.random, self.context.heard)
        self.state, effects = self.step(self.state, happened, world)
        self.context.publish(self.ref, self.state)
        try:
            for effect in effects:
                _CARRY_OUT[type(effect)](self, effect)
        finally:
            if self.cell.reason is not None:  # killed meanwhile: nothing of what was done just now may stay
                self.reap()

    def asked(self, request: ManagementRequest, call: Any, callers: tuple[Ref, ...]) -> None:
        """Take in a management call."""
        self.happened(Asked(call, request, self.key_of(callers)))

    def asked_many(self, requests: Sequence[ManagementRequest], call: Any, callers: tuple[Ref, ...]) -> None:
        """Take in management calls that came in one message, as if they had come one after the other."""
        caller = self.key_of(callers)
        answers = BatchAnswers(call, len(requests))
        self.happened(*[Asked(BatchCall(answers, index), request, caller) for index, request in enumerate(requests)])

    def asked_to_terminate(self, ref: Ref, call: Any, callers: tuple[Ref, ...]) -> None:
        """Take in the call that names a child by its reference."""
        known = self.keys.get(ref)
        if known is None:
            call.fail(ChildNotFound(str(ref)))
        else:
            self.asked(TerminateKey(known[0]), call, callers)

    def key_of(self, callers: tuple[Ref, ...]) -> int | None:
        """Find the child on whose behalf somebody calls: itself, or one of its ancestors, or who started the task."""
        for caller in callers:
            here: Ref | None = caller
            while here is not None:
                known = self.keys.get(here)
                if known is not None:
                    return known[0]
                here = here.parent
        return None

    def exited(self, ref: Ref | None, reason: Reason) -> None:
        """Take in an exit notice; what is not about a child is nothing (SUP-25)."""
        known = None if ref is None else self.keys.get(ref)
        if ref is None or known is None:
            return
        key, incarnation = known
        exit_ = as_exit(reason)
        report = self.reports.pop(ref, ()) if self.reports else ()
        if self.watches:
            self.unwatch(key)
        slot = self.state.slots.get(key)
        if slot is None or slot.incarnation != incarnation:
            self.keys.pop(ref, None)
            return
        closed_for = None if slot.spec.breaker is None else self.tell_breaker(slot, exit_)
        if slot.status == "starting":
            self.happened(FailedToStart(key, incarnation, exit_, closed_for))
        else:
            self.happened(Ended(key, incarnation, exit_, closed_for, report))
        after = self.state.slots.get(key)
        if after is None or not self.is_dynamic:
            self.keys.pop(ref, None)
        if after is None or not after.live:
            self.refs.pop(key, None)

    def halt(self, reason: Reason) -> bool:
        """Be asked to end; says whether it takes care of that by itself."""
        if self.end is not None:
            return False
        self.happened(StopRequested(as_exit(reason)))
        return True

    # -- out -----------------------------------------------------------------------------------------------------------

    def start(self, effect: Start) -> None:
        """Start a child; what comes of it arrives later, or right now when its start has nothing to wait for."""
        key, incarnation, spec = effect.key, effect.incarnation, effect.spec
        start, args, kwargs = self.recipe(spec, effect.rung)
        label = self.label_of(key, spec)
        boot = Boot(self.context, f"{self.path}/{label}") if is_supervisor(start) else None
        token = None if boot is None else booting.set(boot)
        try:
            cell = self.system.create(start, args, kwargs, spec.register, self.ref, label)
        except Exception as error:  # noqa: BLE001 - whatever the start raised is the reason why it failed
            self.forget_old(key)
            self._inbox.append(self.not_started(key, incarnation, error))
            return
        finally:
            if token is not None:
                booting.reset(token)
        if incarnation > 1:
            self.forget_old(key)
        ref = cell.ref
        self.refs[key] = ref
        self.keys[ref] = (key, incarnation)
        if not cell.traits.starts:  # there is nothing to wait for
            if cell.open():
                self.watch(key, spec, incarnation, ref)
                self._inbox.append(Started(key, incarnation, ref))
            else:  # killed before it had started
                self._inbox.append(self.not_started(key, incarnation, cell.start_failure()))
            return
        self.begin(cell, key, incarnation, boot, None if spec.start_timeout == inf else spec.start_timeout)

    def begin(self, cell: Cell, key: int, incarnation: int, boot: Boot | None, timeout: float | None) -> None:
        """Set a child going whose start takes its time; what comes of it arrives as a message."""
        if boot is not None:
            ref = cell.ref
            boot.ready.on_done(lambda _: self.cell.post_system(Happened(Started(key, incarnation, ref))))
            if timeout is not None:
                self.limit_start(ref, boot, timeout)
        self.system.begin(cell, StartOutcome(self.cell, key, incarnation, boot is not None), timeout)

    def limit_start(self, ref: Ref, boot: Boot, timeout: float) -> None:
        """Kill a supervisor among the children whose own children take too long to start."""
        timer = self.system.timers.after(timeout, lambda: ref.cell.kill(Killed("it did not start in time")))
        boot.ready.on_done(lambda _: timer.cancel())

    def forget_old(self, key: int) -> None:
        """Forget the incarnation before."""
        old = self.refs.pop(key, None)
        if old is not None:
            self.keys.pop(old, None)

    def recipe(self, spec: ChildSpec, rung: int) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
        """Say what to start with which arguments, on this rung of the ladder."""
        start, args, kwargs = spec.start, spec.args, spec.kwargs
        if start.__class__ in _SPECS:
            from mlld_sdk.supervision.supervisor import Supervisor

            return Supervisor, (start,), {}
        extra = self.state.spec
        if isinstance(extra, DynamicSpec):
            args = (*extra.extra_args, *args) if extra.extra_args else args
            kwargs = {**extra.extra_kwargs, **kwargs} if extra.extra_kwargs else kwargs
        if rung and spec.wedge:
            kwargs = {**kwargs, **spec.wedge.ladder[rung - 1]}
        return start, args, kwargs

    def label_of(self, key: int, spec: ChildSpec) -> str:
        """Say what a child is called in its path."""
        return f"{spec.name}-{key}" if self.is_dynamic else spec.name

    def outcome(self, key: int, incarnation: int, ref: Ref | None, error: BaseException | None) -> Input:
        """Say what came of a start that took its time."""
        if error is not None:
            return self.not_started(key, incarnation, error)
        assert ref is not None, "a start either fails or has made somebody"
        slot = self.state.slots.get(key)
        if slot is not None:
            self.watch(key, slot.spec, incarnation, ref)
        return Started(key, incarnation, ref)

    def not_started(self, key: int, incarnation: int, error: BaseException) -> Ignored | FailedToStart:
        """Say that a child is not up, and let its breaker know when that is a failure."""
        if isinstance(error, StartIgnored):
            return Ignored(key, incarnation)
        if isinstance(error, StartFailed):
            exit_ = as_exit(error.reason, error.__cause__)
        else:
            exit_ = as_exit(crash(error), error)
        slot = self.state.slots.get(key)
        closed_for = None if slot is None else self.tell_breaker(slot, exit_)
        holder = error.holder if isinstance(error, AlreadyStarted) else None
        return FailedToStart(key, incarnation, exit_, closed_for, holder)

    def signal(self, effect: RequestStop) -> None:
        """Ask a child to end."""
        ref = self.refs.get(effect.key)
        if ref is None:
            return
        slot = self.state.slots[effect.key]
        if is_supervisor(ref.cell.actor.__class__) and slot.spec.kind == "supervisor":
            ref.cell.post_system(Happened(StopRequested(SHUTDOWN, effect.deadline, effect.drain)))
        elif effect.drain:
            ref.stop(block=False, drain=True)
        elif not ref.cell.retire(SHUTDOWN_REASON):
            ref.cell.signal(self.ref, SHUTDOWN_REASON, from_parent=True)

    def kill(self, effect: Kill) -> None:
        """End a child now."""
        ref = self.refs.get(effect.key)
        if ref is not None:
            ref.cell.kill(effect.exit.reason or Killed("by its supervisor"))

    def arm(self, effect: Arm) -> None:
        """Have something fed back later."""
        then = effect.then
        if isinstance(then, Due) and effect.delay == 0:
            self.cell.mailbox.post_always((then, None))  # behind the calls that wait already
            return
        if isinstance(then, Overdue):
            self.limits.set(effect.delay, then)
            return
        timer = self.system.timers.after(effect.delay, lambda: self.cell.post_system(Happened(then)))
        key = getattr(then, "key", -1)
        old = self.timers.pop(key, None)
        if old is not None and key >= 0:
            old.cancel()
        self.timers[key] = timer
        if isinstance(then, Due):
            self.watch_reset(then)

    def disarm(self, effect: Disarm) -> None:
        """Call a timer off."""
        self.limits.lift(effect.key)
        timer = self.timers.pop(effect.key, None)
        if timer is not None:
            timer.cancel()
        if self.resets:
            self.forget_reset(effect.key)

    def answer(self, effect: AnswerCall) -> None:
        """Answer a call."""
        if effect.error is not None:
            effect.call.fail(effect.error)
        else:
            effect.call.reply(effect.value)

    def tell(self, effect: Emit) -> None:
        """Hand an event on."""
        self.context.sink(effect.event)

    def ready(self, _: Ready) -> None:
        """The start is done."""
        self.boot.ready.try_set(self.ref)

    def finish(self, effect: Finish) -> None:
        """Nothing is left below: end, after the parent has been told who had to be killed."""
        parent = self.cell.parent
        if effect.killed and parent is not None and is_supervisor(parent.actor.__class__):
            parent.post_system(KilledBelow(self.ref, effect.killed))
        self.context.ended(self.ref, effect.killed)
        self.end = effect.exit.reason or SHUTDOWN_REASON

    def reap(self) -> None:
        """This incarnation is gone, whatever ended it: whoever is left below has its own time to stop, and no more."""
        for timer in [*self.timers.values(), *self.watches.values()]:
            timer.cancel()
        self.limits.close()
        for key in list(self.resets):
            self.forget_reset(key)
        self.context.forget(self.ref)
        for key, ref in sorted(self.refs.items(), reverse=True):
            slot = self.state.slots.get(key)
            limit = 0.0 if slot is None or slot.spec.shutdown == "kill" else slot.spec.shutdown
            if ref.reason is None and limit != inf:
                ref.shutdown(limit)

    # -- breakers ------------------------------------------------------------------------------------------------------

    def breaker_of(self, slot: Slot) -> Breaker | None:
        """Find the breaker in front of a child."""
        policy = slot.spec.breaker
        if policy is None:
            return None
        return self.context.breakers.get(policy, f"{self.path}/{self.label_of(slot.key, slot.spec)}")

    def forget(self, effect: Forget) -> None:
        """Drop the breaker of a child that has left for good, if it was its own."""
        policy = effect.spec.breaker
        if policy is not None and not policy.name:
            self.context.breakers.forget(f"{self.path}/{self.label_of(effect.key, effect.spec)}")

    def tell_breaker(self, slot: Slot, exit_: ChildExit) -> float | None:
        """Let the breaker know of an end; say for how long it keeps the child parked, if it does."""
        if slot.spec.breaker is None:
            return None
        guard = self.breaker_of(slot)
        if guard is None:
            return None
        permit = self.permits.pop(slot.key, None)
        if exit_.expected or slot.status == "stopping":
            if permit is not None:
                permit.withdraw()
        else:
            if permit is not None:
                permit.failure(exit_)
            else:
                guard.report(exit_)
        view = guard.view()
        return view.retry_after if guard.policy.parks and view.status == "open" else None

    def ask_breaker(self, key: int) -> float | None:
        """Ask whether a child may be started now; say for how long it may not."""
        slot = self.state.slots.get(key)
        guard = None if slot is None else self.breaker_of(slot)
        self.forget_reset(key)
        if slot is None or guard is None or slot.spec.breaker is None or not slot.spec.breaker.parks:
            return None
        try:
            permit = guard.acquire()
        except BreakerOpen as refused:
            return max(refused.retry_after, 0.05)
        if slot.status == "parked":
            self.permits[key] = permit
        return None

    def watch_reset(self, due: Due) -> None:
        """Try a parked child again as soon as somebody resets its breaker."""
        slot = self.state.slots.get(due.key)
        guard = None if slot is None or slot.status != "parked" else self.breaker_of(slot)
        if guard is not None:

            def closed() -> None:
                self.cell.post_system(Happened(due))

            guard.on_reset(closed)
            self.resets[due.key] = (guard, closed)

    def forget_reset(self, key: int) -> None:
        """Undo `watch_reset`."""
        known = self.resets.pop(key, None)
        if known is not None:
            known[0].forget(known[1])

    # -- watching running children -------------------------------------------------------------------------------------

    def watch(self, key: int, spec: ChildSpec, incarnation: int, ref: Ref) -> None:
        """Look after a child that has just come up: for progress, and for the time its breaker's probe needs."""
        permit = self.permits.get(key) if self.permits else None
        if permit is not None:
            stable = spec.backoff.stable if spec.backoff else STABLE
            if spec.breaker is not None:
                stable = min(stable, spec.breaker.probe_timeout / 2)
            self.watches[-1 - key] = self.system.timers.after(stable, permit.success)
        if spec.wedge is not None:
            self.look_again(key, incarnation, ref, spec.wedge.after, spec.wedge.after)

    def look_again(self, key: int, incarnation: int, ref: Ref, limit: float, delay: float) -> None:
        """Look at a child's progress when it could have been stuck for too long at the earliest."""

        def info() -> None:
            try:
                idle = idle_of(ref)
            except Exception as error:  # noqa: BLE001 - a class that cannot say it is looked at again
                self.system.callback_failed(error)
                idle = 0.0
            if idle >= limit:
                self.cell.post_system(Happened(NoProgress(key, incarnation, idle)))
            elif ref.reason is None:
                self.look_again(key, incarnation, ref, limit, limit - idle)

        self.watches[key] = self.system.timers.after(delay, info)

    def unwatch(self, key: int) -> None:
        """Stop looking after a child."""
        for which in (key, -1 - key):
            timer = self.watches.pop(which, None)
            if timer is not None:
                timer.cancel()


_SPECS = (SupervisorSpec, DynamicSpec)

_CARRY_OUT: dict[type, Callable[[Executor, Any], None]] = {
    Start: Executor.start,
    RequestStop: Executor.signal,
    Kill: Executor.kill,
    Arm: Executor.arm,
    Disarm: Executor.disarm,
    Forget: Executor.forget,
    AnswerCall: Executor.answer,
    Emit: Executor.tell,
    Ready: Executor.ready,
    Finish: Executor.finish,
}
