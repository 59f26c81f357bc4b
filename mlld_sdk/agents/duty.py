"""Taking work or none: what an agent or a pool does when it is told to drain, and who is told that it has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.directives import NO_REPLY
from mlld_sdk.actors.core.ref import ReplyTo
from mlld_sdk.engines.background import run_later
from mlld_sdk.engines.draining import ClosingSource, Draining
from mlld_sdk.engines.requests import EngineRequests

LOOK: Final = 0.05
"""Seconds between two looks whether the requests of one that drains have ended."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no more work, neither runs nor requests; answered when none is left.

    Attributes:
        admits_runs: Take requests that come from the code of a run, so that runs under way anywhere can end.
    """

    admits_runs: bool = False


@dataclass(frozen=True, slots=True)
class TakeWork:
    """Take work again after `Drain`; answered with whether it was draining or drained."""


@dataclass(frozen=True, slots=True)
class _LookAgain:
    """Look whether the work has ended."""


class Duty:
    """Whether one incarnation takes work. Used on its turn only, but for what can be read.

    Args:
        owner: The incarnation, which sends itself the messages that `receive` takes.
        is_at_work: Whether anything it has taken has not ended.

    Attributes:
        over: It takes no more work.
    """

    def __init__(self, owner: Actor, is_at_work: Callable[[], bool]) -> None:
        self.over = False
        self._owner = owner
        self._is_at_work = is_at_work
        self._waiting: list[ReplyTo] = []

    @property
    def word(self) -> str:
        """`draining` or `drained` if it takes no more work, else empty."""
        return "" if not self.over else "draining" if self._is_at_work() else "drained"

    def receive(self, message: object, requests: EngineRequests) -> object:
        """Take a message about duty; `NotImplemented` if it is about something else.

        Args:
            message: The message.
            requests: The way to the owner's engines, which is closed to new requests or opened again.
        """
        match message:
            case Drain(admits_runs=admits_runs):
                self.end(requests, admits_runs=admits_runs)
                if not self._waiting:
                    run_later(LOOK, self._owner.actor_ref.cast, _LookAgain())
                self._waiting.append(self._owner.reply_to())
                self.look()
                return NO_REPLY
            case _LookAgain():
                self.look()
                if self._waiting:
                    run_later(LOOK, self._owner.actor_ref.cast, message)
            case TakeWork():
                return self._begin(requests)
            case _:
                return NotImplemented
        return None

    def end(self, requests: EngineRequests, *, admits_runs: bool) -> None:
        """Take no more work from now on."""
        self.over = True
        if not isinstance(requests.source, ClosingSource):
            requests.source = ClosingSource(requests.source, Draining(requests.name), admits_runs=admits_runs)

    def look(self) -> None:
        """Answer those who wait for the end of the work, if it has ended."""
        if self.over and not self._is_at_work():
            self._answer(True)

    def _begin(self, requests: EngineRequests) -> bool:
        was, self.over = self.over, False
        if isinstance(requests.source, ClosingSource):
            requests.source = requests.source.behind
        self._answer(False)  # the drain was called off
        return was

    def _answer(self, drained: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for reply in waiting:
            reply.reply(drained)
