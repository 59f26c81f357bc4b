"""Carrying out what a supervisor decides: actors are started, stopped and killed here, timers set, calls answered.

Everything here runs as the supervisor, one thing at a time. Nothing blocks: starts and stops are asked for, and what
comes of them arrives as a message in the system lane.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.cell import Cell
from mlld_sdk.actors.core.errors import ActorDead, AlreadyStarted, StartFailed, StartIgnored
from mlld_sdk.actors.core.exits import SHUTDOWN as SHUTDOWN_REASON
from mlld_sdk.actors.core.exits import Killed, Reason, crash
from mlld_sdk.actors.core.timers import Timer
from mlld_sdk.actors.pubsub.groups import Groups
from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.supervision.decisions import effects, inputs, requests
from mlld_sdk.supervision.decisions.decide import initial, step
from mlld_sdk.supervision.decisions.draft import World
from mlld_sdk.supervision.decisions.slots import Slot
from mlld_sdk.supervision.decisions.state import SupervisorState
from mlld_sdk.supervision.errors import ChildNotFound
from mlld_sdk.supervision.execution.guards import BreakerGuards
from mlld_sdk.supervision.execution.messages import Boot, Happened, StartOutcome, StopLimitDue, batched, booting
from mlld_sdk.supervision.execution.progress import ProgressWatches
from mlld_sdk.supervision.execution.stop_limits import StopLimits
from mlld_sdk.supervision.execution.tree_context import Ref
from mlld_sdk.supervision.reasons import SHUTDOWN, as_exit
from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, SupervisorSpec

FORMER = 64
"""References to what is down that are kept beyond two for each child."""


class Executor:
    """One incarnation of a supervisor, seen from the side of effects.

    Args:
        actor: The supervisor itself.
        supervisor: The class that is started for a child which is a supervisor's spec.
        spec: What it supervises.
        boot: What it was given when it was started.
    """

    def __init__(self, actor: Actor, supervisor: type[Actor], spec: SupervisorSpec | DynamicSpec, boot: Boot) -> None:
        self.supervisor = supervisor
        self.boot = boot
        self.context = boot.context
        self.path = boot.path
        self.ref: Ref = actor.actor_ref
        self.cell = self.ref.cell
        self.system = actor.system
        self.state: SupervisorState = initial(boot.path, spec)
        self.refs: dict[int, Ref] = {}
        self.keys: dict[Ref, tuple[int, int, Boot | None]] = {}
        self.former: dict[Ref, tuple[int, int]] = {}
        self.timers: dict[int, Timer] = {}
        self.limits = StopLimits(self.system.timers, self.system.env.now, lambda: self.cell.post_system(StopLimitDue()))
        self.watches = ProgressWatches(self.system, self._post)
        self.guards = BreakerGuards(self.context.breakers, self.system.timers)
        self.end: Reason | None = None
        self._inbox: list[inputs.Input] = []
        self._working = False

    # -- in ------------------------------------------------------------------------------------------------------------

    def take(self, happened: inputs.Input) -> None:
        """Decide about something; before a planned start attempt, the child's breaker is asked."""
        if type(happened) is inputs.Due:
            slot = self.state.slots.get(happened.key)
            closed_for = None if slot is None else self.guards.ask(slot, self.state.path_of(slot))
            happened = inputs.Due(happened.key, happened.incarnation, closed_for)
        self.happened(happened)

    def happened(self, *inputs: inputs.Input) -> None:
        """Decide about inputs and carry the decisions out; called again meanwhile, it only takes note."""
        self._inbox += inputs
        if self._working:
            return
        self._working = True
        try:
            while self._inbox:
                happened, self._inbox = self._inbox, []
                self._decide(happened)
        finally:
            self._working = False
        if self.end is not None:
            self.cell.end(self.end)

    def _decide(self, happened: list[inputs.Input]) -> None:
        """Make one step."""
        env = self.system.env
        self.state, effects = step(self.state, happened, World(env.now(), env.wall(), env.random, self.context.heard))
        self.context.publish(self.ref, self.state)
        try:
            for effect in effects:
                _CARRY_OUT[type(effect)](self, effect)
        finally:
            if self.cell.reason is not None:  # killed meanwhile: nothing of what was done just now may stay
                self.reap()

    def asked(self, request: requests.ManagementRequest, call: Any, callers: tuple[Ref, ...]) -> None:
        """Take in a management call."""
        if type(request) is requests.TerminateChild and not isinstance(request.child, str):
            known = self.keys.get(request.child)
            key = self._down(request.child) if known is None else known[0]
            if key is None:
                call.fail(ChildNotFound(str(request.child)))
                return
            request = requests.TerminateChild(key, request.why)
        elif type(request) is requests.Update and isinstance(request.spec, SupervisorSpec):
            try:
                self.guards.check(request.spec)
            except InvalidOption as refused:
                call.fail(refused)
                return
        self.happened(inputs.Asked(call, request, self._key_of(callers)))

    def asked_many(self, wanted: Sequence[requests.ManagementRequest], call: Any, callers: tuple[Ref, ...]) -> None:
        """Take in management calls that came in one message, as if they had come one after the other."""
        caller, calls = self._key_of(callers), batched(call, len(wanted))
        self.happened(*[inputs.Asked(one, request, caller) for one, request in zip(calls, wanted, strict=True)])

    def _down(self, ref: Ref) -> int | None:
        """Find the dynamic child that is down, or starting again, by its last incarnation that was up."""
        key, restarts = self.former.get(ref, (-1, 0))
        slot = self.state.slots.get(key)
        return key if slot is not None and slot.child is None and slot.restarts == restarts else None

    def _remember(self, ref: Ref, slot: Slot) -> None:
        """Remember an incarnation that is down by the name callers have for it, as long as none is up after it."""
        self.former[ref] = (slot.key, slot.restarts)
        if len(self.former) > FORMER + 2 * len(self.state.slots):
            self.former = {one: known for one, known in self.former.items() if self._down(one) is not None}

    def _key_of(self, callers: tuple[Ref, ...]) -> int | None:
        """Find the child on whose behalf a call is made: itself, one of its ancestors, or what started the task."""
        for caller in callers:
            here: Ref | None = caller
            while here is not None:
                known = self.keys.get(here)
                if known is not None:
                    return known[0]
                here = here.parent
        return None

    def exited(self, ref: Ref | None, reason: Reason) -> None:
        """Take in an exit notice; one that is not about a child is ignored (SUP-25)."""
        known = None if ref is None else self.keys.get(ref)
        if ref is None or known is None:
            return
        key, incarnation, boot = known
        slot = self.state.slots.get(key)
        if slot is None or slot.status == "stopping":
            self.limits.lift(key)
        if slot is None or slot.spec.wedge is not None:
            self.watches.unwatch(key)
        if slot is None or slot.incarnation != incarnation:
            del self.keys[ref]
            return
        exit_ = as_exit(reason)
        closed_for = None if slot.spec.breaker is None else self.guards.tell(slot, self.state.path_of(slot), exit_)
        if slot.status == "starting":
            self.happened(inputs.FailedToStart(key, incarnation, exit_, closed_for))
        else:
            self.happened(inputs.Ended(key, incarnation, exit_, closed_for, () if boot is None else boot.killed))
        after = self.state.slots.get(key)
        if after is None and boot is not None:
            self.context.forget(boot.path)
        self.keys.pop(ref, None)
        if after is not None and not self.state.keeps and slot.status != "starting":
            self._remember(ref, slot)
        if after is None or not after.live:
            self.refs.pop(key, None)

    def configured(self, ref: Ref, options: Mapping[str, Any]) -> None:
        """Take in options that a child was given while it runs."""
        known = self.keys.get(ref)
        if known is not None:
            self.happened(inputs.Configured(known[0], known[1], options))

    def options_of(self, ref: Ref) -> Mapping[str, Any]:
        """Return the options that are kept for a child; called from its own turn."""
        known = self.keys.get(ref)
        slot = None if known is None else self.state.slots.get(known[0])
        return {} if slot is None else slot.configured or {}

    def stop_limit_due(self) -> None:
        """Take in which children have had their time to stop."""
        self.happened(*self.limits.take_due())

    def stop(self, reason: Reason) -> bool:
        """Begin to stop because the actor is asked to end; return `False` when it has stopped already."""
        if self.end is not None:
            return False
        self.happened(inputs.StopRequested(as_exit(reason)))
        return True

    # -- starts --------------------------------------------------------------------------------------------------------

    def start(self, effect: effects.Start) -> None:
        """Start a child; what comes of it arrives later, or right now when its start has nothing to wait for."""
        key, incarnation, spec, label = effect.key, effect.incarnation, effect.spec, effect.label
        start, args, kwargs = self.recipe(spec, effect.rung)
        supervises = isinstance(start, type) and issubclass(start, self.supervisor)
        boot = Boot(self.context, f"{self.path}/{label}") if supervises else None
        token = None if boot is None else booting.set(boot)
        try:
            if spec.breaker is not None:  # it is there from now on, closed, and is refused if it contradicts another
                self.context.breakers.get(spec.breaker, f"{self.path}/{label}")
            cell = self.system.create(start, args, kwargs, spec.register, self.ref, label)
        except Exception as error:  # noqa: BLE001 - whatever the start raised is the reason why it failed
            self._inbox.append(self._not_started(key, incarnation, error))
            return
        finally:
            if token is not None:
                booting.reset(token)
        if incarnation > 1:
            self._forget(key)
        ref = cell.ref
        self.refs[key] = ref
        self.keys[ref] = (key, incarnation, boot)
        if cell.traits.starts:
            self._begin(cell, key, incarnation, boot, None if spec.start_timeout == inf else spec.start_timeout)
        elif cell.open():  # there is nothing to wait for
            if spec.breaker is not None or spec.wedge is not None or spec.groups:
                self._look_after(key, incarnation, ref, spec)
            self._inbox.append(inputs.Started(key, incarnation, ref))
        else:  # killed before it had started
            self._inbox.append(self._not_started(key, incarnation, cell.start_failure()))

    def _begin(self, cell: Cell, key: int, incarnation: int, boot: Boot | None, timeout: float | None) -> None:
        """Begin a start that takes its time; what comes of it arrives as a message."""
        if boot is not None:
            ref = cell.ref
            boot.ready.on_done(lambda _: self._post(inputs.Started(key, incarnation, ref)))
            if timeout is not None:  # of the children's own children
                late = Killed("it did not start in time")
                timer = self.system.timers.after(timeout, lambda: ref.cell.kill(late))
                boot.ready.on_done(lambda _: timer.cancel())
        self.system.begin(cell, StartOutcome(self.cell, key, incarnation, boot is not None), timeout)

    def start_ended(self, key: int, incarnation: int, ref: Ref | None, error: BaseException | None) -> None:
        """Take in what came of a start that took its time."""
        if error is not None:
            self.happened(self._not_started(key, incarnation, error))
        else:
            assert ref is not None, "a start either fails or has made an actor"
            slot = self.state.slots.get(key)
            if slot is not None and slot.incarnation == incarnation:
                self._look_after(key, incarnation, ref, slot.spec)
            self.happened(inputs.Started(key, incarnation, ref))

    def _look_after(self, key: int, incarnation: int, ref: Ref, spec: ChildSpec) -> None:
        """Have a child that is up join its groups, and watch it for progress and for its breaker's probe."""
        if spec.groups and self.state.slots[key].status == "starting":  # else it is being stopped again
            groups = Groups.shared(self.system)
            with suppress(ActorDead):  # it has ended meanwhile, as will be told
                for group in spec.groups:
                    groups.join(group, ref)
        if spec.breaker is not None:
            self.guards.child_is_up(key, spec)
        if spec.wedge is not None:
            self.watches.watch(key, incarnation, ref, spec.wedge.after, spec.wedge.after)

    def _not_started(self, key: int, incarnation: int, error: BaseException) -> inputs.Ignored | inputs.FailedToStart:
        """Describe why a child is not up, and report it to its breaker when that is a failure."""
        self.limits.lift(key)
        self._forget(key)
        if isinstance(error, StartIgnored):
            return inputs.Ignored(key, incarnation)
        if isinstance(error, StartFailed):
            exit_ = as_exit(error.reason, error.__cause__)
        else:
            exit_ = as_exit(crash(error), error)
        slot = self.state.slots.get(key)
        closed_for = None if slot is None else self.guards.tell(slot, self.state.path_of(slot), exit_)
        holder = error.holder if isinstance(error, AlreadyStarted) else None
        return inputs.FailedToStart(key, incarnation, exit_, closed_for, holder)

    def recipe(self, spec: ChildSpec, rung: int) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
        """Return what to start with which arguments, on this rung of the ladder."""
        start, args, kwargs = spec.start, spec.args, spec.kwargs
        if type(start) in _SPECS:
            return self.supervisor, (start,), {}
        extra = self.state.spec
        if type(extra) is DynamicSpec:
            args = (*extra.extra_args, *args) if extra.extra_args else args
            kwargs = {**extra.extra_kwargs, **kwargs} if extra.extra_kwargs else kwargs
        if rung and spec.wedge:
            kwargs = {**kwargs, **spec.wedge.ladder[rung - 1]}
        return start, args, kwargs

    def _forget(self, key: int) -> None:
        """Forget an incarnation that has ended or did not start."""
        old = self.refs.pop(key, None)
        if old is not None:
            self.keys.pop(old, None)

    # -- ends ----------------------------------------------------------------------------------------------------------

    def request_stop(self, effect: effects.RequestStop) -> None:
        """Ask a child to end."""
        ref = self.refs.get(effect.key)
        if ref is None:
            return
        self.limits.set(effect.key, effect.incarnation, effect.due)
        if isinstance(ref.cell.actor, self.supervisor) and self.state.slots[effect.key].spec.kind == "supervisor":
            ref.cell.post_system(Happened(inputs.StopRequested(SHUTDOWN, effect.deadline, effect.drain)))
        elif effect.drain:
            ref.stop(block=False, drain=True)
        elif not ref.cell.retire(SHUTDOWN_REASON):
            ref.cell.signal(self.ref, SHUTDOWN_REASON, from_parent=True)

    def kill(self, effect: effects.Kill) -> None:
        """End a child now."""
        ref = self.refs.get(effect.key)
        if ref is not None:
            ref.cell.kill(effect.exit.reason or Killed("by its supervisor"))

    def finish(self, effect: effects.Finish) -> None:
        """End, and leave word of what had to be killed."""
        self.boot.killed = effect.killed
        self.end = effect.exit.reason or SHUTDOWN_REASON

    def reap(self) -> None:
        """Clean up after this incarnation, whatever ended it: children left below get their time to stop, no more."""
        for timer in self.timers.values():
            timer.cancel()
        self.watches.close()
        self.guards.close()
        self.limits.close()
        self.context.publish(self.ref, None)
        for key, ref in sorted(self.refs.items(), reverse=True):
            slot = self.state.slots.get(key)
            limit = 0.0 if slot is None or slot.spec.shutdown == "kill" else slot.spec.shutdown
            if ref.reason is None and limit != inf:
                ref.shutdown(limit)

    # -- timers, answers and events ------------------------------------------------------------------------------------

    def arm(self, effect: effects.Arm) -> None:
        """Feed an input back later."""
        then, key = effect.then, effect.then.key
        if effect.delay == 0:
            self.cell.mailbox.post_always((then, None))  # behind the calls that wait already
            return
        old = self.timers.pop(key, None)
        if old is not None:
            old.cancel()
        self.timers[key] = self.system.timers.after(effect.delay, lambda: self._post(then))
        slot = self.state.slots.get(key)
        if slot is not None:
            self.guards.on_reset(slot, self.state.path_of(slot), lambda: self._post(then))

    def disarm(self, effect: effects.Disarm) -> None:
        """Call a planned start attempt off."""
        timer = self.timers.pop(effect.key, None)
        if timer is not None:
            timer.cancel()
        self.guards.forget_reset(effect.key)

    def answer(self, effect: effects.AnswerCall) -> None:
        """Answer a call."""
        if effect.error is not None:
            effect.call.fail(effect.error)
        else:
            effect.call.reply(effect.value)

    def _post(self, happened: inputs.Input) -> None:
        """Feed an input back from another thread."""
        self.cell.post_system(Happened(happened))


_SPECS = (SupervisorSpec, DynamicSpec)

_CARRY_OUT: dict[type, Callable[[Executor, Any], object]] = {
    effects.Start: Executor.start,
    effects.RequestStop: Executor.request_stop,
    effects.LimitStops: lambda executor, effect: executor.limits.shorten(effect.due),
    effects.Kill: Executor.kill,
    effects.Arm: Executor.arm,
    effects.Disarm: Executor.disarm,
    effects.Forget: lambda executor, effect: executor.context.breakers.forget(effect.path),
    effects.AnswerCall: Executor.answer,
    effects.Emit: lambda executor, effect: executor.context.sink(effect.event),
    effects.Ready: lambda executor, _: executor.boot.ready.try_set(executor.ref),
    effects.Finish: Executor.finish,
}
