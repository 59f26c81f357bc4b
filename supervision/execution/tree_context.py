"""What all supervisors of one tree share."""

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.durations import Deadline
from mlld_sdk.base.events import Event, Sink, discard
from mlld_sdk.supervision.breaker import Breakers
from mlld_sdk.supervision.decisions.state import SupervisorState

Ref = ActorRef[Any]

ENDED = 1_000
"""Supervisors whose last state is kept although the tree goes on; beyond it the oldest are forgotten."""

LEAVING = ("stopping", "gone")


class BacklogView(msgspec.Struct, frozen=True, kw_only=True):
    """Runs that wait for a place, or are worked on there.

    Attributes:
        known: Whether that is known now; if not, all else says nothing.
        pending: Runs that nobody works on.
        waiting: Those of them that could be worked on now; the others sleep.
        running: Runs that somebody works on, in whichever process.
        parked: Runs that wait for a person.
        oldest: Seconds for which the oldest has waited; 0 when none waits.
        limit: Seconds of that from which on the place is degraded; `None` for never.
    """

    known: bool = True
    pending: int = 0
    waiting: int = 0
    running: int = 0
    parked: int = 0
    oldest: float = 0.0
    limit: float | None = None

    @property
    def starves(self) -> bool:
        """Whether the oldest has waited for too long."""
        return self.limit is not None and self.waiting > 0 and self.oldest >= self.limit


class TreeContext:
    """The published states of all supervisors of a tree, the breakers, and the way out for events.

    Attributes:
        name: First part of every path; set when the tree starts.
        sink: Takes every event.
        heard: Whether events have a listener; if not, the most frequent ones are not even made.
        breakers: By name.
        states: What each running supervisor published last.
        ended: What each supervisor was like at its end, by its path, until there is another one.
        over_since: When the root was gone (monotonic).
        version: Changes with each of these states, so that what was found in them can be kept until then.
        backlog: Tells what waits for a place, by its path and the actor that fills it now. It must answer at once.
    """

    def __init__(self, system: ActorSystem, sink: Sink | None = None, breakers: Breakers | None = None) -> None:
        self.system = system
        self.name = ""
        self._sink = sink or system.sink
        self.heard = self._sink is not discard
        self.breakers = breakers or Breakers(system.env, self.sink)
        self.states: dict[Ref, SupervisorState] = {}
        self.ended: dict[str, SupervisorState] = {}
        self.over_since: float | None = None
        self.version = 0
        self.backlog: Callable[[str, Ref | None], BacklogView | None] = lambda _path, _child: None
        self._changed = threading.Condition()
        self._waiting = 0

    def sink(self, event: Event) -> None:
        """Take an event; a sink that raises is reported, and changes nothing else."""
        try:
            self._sink(event)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a listener must not change what supervisors do
            self.system.callback_failed(error)

    def publish(self, ref: Ref, state: SupervisorState | None) -> None:
        """Publish a supervisor's state; `None` when it is gone."""
        before = self.states.get(ref)
        if state is None:
            if before is not None:
                self._remember(before, before)
                self.states.pop(ref, None)
        else:
            if before is None:
                if self.ended:
                    self.ended.pop(state.path, None)
            elif state.phase in LEAVING:
                self._remember(before, state)
            self.states[ref] = state
        self.version += 1
        self.look_again()

    def _remember(self, before: SupervisorState, state: SupervisorState) -> None:
        """Keep what a supervisor is like at its end; a dynamic one lets go of its children then, so theirs are kept."""
        path, gone = state.path, state.phase == "gone" or before is state
        if state.keeps or path not in self.ended:
            self.ended[path] = state if state.keeps else msgspec.structs.replace(state, slots=before.slots)
            if len(self.ended) > ENDED and not self.ends:
                self.ended.pop(list(self.ended)[0], None)  # noqa: RUF015 - others add to it meanwhile
        if gone and path == self.name and self.over_since is None:
            self.over_since = self.system.env.now()

    @property
    def ends(self) -> bool:
        """Whether the root is stopping or gone."""
        return self.name in self.ended

    def forget(self, path: str) -> None:
        """Forget what a supervisor was like that has been removed, unless the tree itself ends."""
        if self.ended and not self.ends:
            self.ended.pop(path, None)

    def look_again(self) -> None:
        """Have those that wait ask again."""
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    def wait_for(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Wait until `holds()` says so; it is asked after every change of any supervisor."""
        deadline = Deadline(timeout)
        with self._changed:
            self._waiting += 1
            try:
                while not holds():
                    left = deadline.left
                    if left <= 0:
                        return False
                    self._changed.wait(min(left, 0.5))
                return True
            finally:
                self._waiting -= 1
