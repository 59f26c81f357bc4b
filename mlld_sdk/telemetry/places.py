"""Where every child stands, put together from events alone: for views that are not inside the program, and for tests.

Inside the program `runtime.snapshot()` says more. What both say must agree as soon as nothing is on its way; that is
how it is known that supervision tells every transition. The states in between, `starting` and `stopping`, are no
transitions of their own and are told by the event at their end.
"""

import threading
from typing import Literal

import msgspec

from mlld_sdk.base.events import Event
from mlld_sdk.supervision.events import (
    BreakerClosed,
    BreakerHalfOpened,
    BreakerOpened,
    ChildExited,
    ChildIgnored,
    ChildPutOff,
    ChildStarted,
    ChildStartFailedEvent,
    ChildStopped,
    Decision,
    SupervisorStarted,
    SupervisorStopped,
)

PlaceState = Literal["running", "stopped", "waiting", "parked", "failed"]
BreakerState = Literal["closed", "half_open", "open"]

BREAKERS: dict[type[Event], BreakerState] = {
    BreakerOpened: "open",
    BreakerHalfOpened: "half_open",
    BreakerClosed: "closed",
}
"""The state of a breaker after an event about it."""

AFTER: dict[Decision, PlaceState] = {"restart": "waiting", "wait": "waiting", "park": "parked", "fail": "failed"}
"""Where a child stands after a decision about it; `stopped` after the others."""


class PlaceView(msgspec.Struct, frozen=True, kw_only=True):
    """One child, as far as events tell.

    Attributes:
        path: Where it stands in the tree.
        state: Its state when nothing is on its way.
        incarnation: Which start of it the state is about.
        since: Wall-clock seconds at which the state was entered.
        restarts: How often it was started again by itself.
    """

    path: str
    state: PlaceState
    incarnation: int
    since: float
    restarts: int = 0


class Places:
    """The tree as events tell it. Attach it with `bus.attach_inline("places", places)` before the tree starts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[str, PlaceView] = {}
        self._breakers: dict[str, BreakerState] = {}
        self._crowds: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        with self._lock:
            match event:
                case ChildStarted():
                    self._put(event.path, "running", event.incarnation, event.at, again=event.cause == "restart")
                case ChildExited() | ChildStartFailedEvent() | ChildPutOff() | ChildStopped():
                    decision = "stop" if isinstance(event, ChildStopped) else event.decision
                    self._forget_below(event.path)
                    self._settle(event.path, decision, event.incarnation, event.at)
                case ChildIgnored():
                    self._settle(event.path, "stop" if event.kept else "remove", event.incarnation, event.at)
                case SupervisorStarted():
                    if event.strategy == "dynamic":
                        self._crowds.add(event.path)
                case SupervisorStopped():
                    self._forget_below(event.path)
                case BreakerOpened() | BreakerHalfOpened() | BreakerClosed():
                    self._breakers[event.breaker] = BREAKERS[type(event)]

    def places(self) -> dict[str, PlaceView]:
        """Return what is known of every child, by path."""
        with self._lock:
            return dict(self._places)

    def breakers(self) -> dict[str, BreakerState]:
        """Return every breaker that has ever changed, by name."""
        with self._lock:
            return dict(self._breakers)

    def _put(self, path: str, state: PlaceState, incarnation: int, at: float, *, again: bool = False) -> None:
        known = self._places.get(path)
        restarts = (known.restarts if known else 0) + again
        self._places[path] = PlaceView(path=path, state=state, incarnation=incarnation, since=at, restarts=restarts)

    def _settle(self, path: str, decision: Decision, incarnation: int, at: float) -> None:
        state = AFTER.get(decision, "stopped")
        gone = decision == "remove" or (state == "stopped" and path.rpartition("/")[0] in self._crowds)
        if gone:  # a dynamic supervisor forgets children that are not coming back
            self._places.pop(path, None)
        else:
            self._put(path, state, incarnation, at)

    def _forget_below(self, path: str) -> None:
        """Drop what was supervised here: it is gone with its supervisor, which may have had no time to tell."""
        self._crowds.discard(path)
        for one in [one for one in self._places if one.startswith(f"{path}/")]:
            del self._places[one]
