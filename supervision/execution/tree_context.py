"""What all supervisors of one tree share."""

import threading
from collections.abc import Callable
from typing import Any

from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.base.durations import Deadline
from mlld_sdk.base.events import Event, Sink, discard
from mlld_sdk.supervision.breaker import Breakers
from mlld_sdk.supervision.decisions.state import SupervisorState

Ref = ActorRef[Any]


class TreeContext:
    """The published states of all supervisors of a tree, the breakers, and the way out for events.

    Attributes:
        sink: Takes every event.
        heard: Whether events have a listener; if not, the most frequent ones are not even made.
        breakers: By name.
        states: What each running supervisor published last.
        version: Changes with each of these states, so that what was found in them can be kept until then.
    """

    def __init__(self, system: ActorSystem, sink: Sink | None = None) -> None:
        self.system = system
        self._sink = sink or system.sink
        self.heard = self._sink is not discard
        self.breakers = Breakers(system.env, self.sink)
        self.states: dict[Ref, SupervisorState] = {}
        self.version = 0
        self._changed = threading.Condition()
        self._waiting = 0

    def sink(self, event: Event) -> None:
        """Take an event; a sink that raises is reported, and changes nothing else."""
        try:
            self._sink(event)
        except Exception as error:  # noqa: BLE001 - a listener must not change what supervisors do
            self.system.callback_failed(error)

    def publish(self, ref: Ref, state: SupervisorState | None) -> None:
        """Publish a supervisor's state; `None` when it is gone."""
        if state is None:
            self.states.pop(ref, None)
        else:
            self.states[ref] = state
        self.version += 1
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
