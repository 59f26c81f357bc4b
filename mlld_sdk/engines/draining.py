"""Letting requests come to an end: what stands in front of their engines meanwhile, and the wait for the last one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from mlld_sdk.base.durations import Deadline, pause
from mlld_sdk.base.errors import InfrastructureError, MlldError
from mlld_sdk.engines.quota import CancelScope
from mlld_sdk.engines.shared import EngineSource
from mlld_sdk.transport.call import OnEvents

LOOK: Final = 0.02
"""Seconds between two looks whether the last request has ended."""


@dataclass(eq=False, repr=False)
class Draining(InfrastructureError):
    """What was asked finishes the requests it has and takes no new ones; nothing was sent.

    Attributes:
        owner: The agent, pool or client.
    """

    code = "DRAINING"
    message = "{owner} is draining: it finishes what it has and takes no new requests"
    hint = "ask another one, or ask again when it was resumed or started"
    owner: str


class ClosingSource:
    """Refuses new requests in place of a source, and lets those end that the source has taken.

    Those are in flight, or wait for an engine, which they still get.

    Args:
        behind: The source.
        why: What new requests are told.

    Attributes:
        scope: Holds what they are told, until the source itself is stopped.
        admits_runs: Whether requests made by the code of a run may still be sent to the source.
    """

    begins_at_once = True

    def __init__(self, behind: EngineSource, why: MlldError, *, admits_runs: bool = False) -> None:
        self.behind = behind
        self.health = behind.health
        self.scope = CancelScope()
        self.scope.end(why)
        self.admits_runs = admits_runs

    @property
    def in_flight(self) -> int:
        """How many requests have been taken and not ended."""
        return self.behind.in_flight

    @property
    def is_at_rest(self) -> bool:
        """Whether none is left, and the engines are back."""
        return self.behind.is_at_rest

    def call(self, method: str, params: object, timeout: float | None, on_events: OnEvents | None) -> NoReturn:  # noqa: ARG002
        """Refuse a request."""
        assert self.scope.over is not None
        raise copy.copy(self.scope.over)

    submit = call

    def stop(self, why: MlldError) -> None:
        """Stop the source: requests that are left end with `why`."""
        self.scope = self.behind.scope
        self.behind.stop(why)

    def close(self, why: MlldError) -> None:
        """Close the source: requests that are left end with `why`."""
        self.scope = self.behind.scope
        self.behind.close(why)


AnySource = EngineSource | ClosingSource
"""What requests are sent to."""


def wait_for_rest(is_at_rest: Callable[[], bool], timeout: float) -> bool:
    """Wait until the last request has ended, and return whether that was so in time."""
    deadline = Deadline(timeout)
    while not is_at_rest():
        if deadline.is_over:
            return False
        pause(min(LOOK, deadline.left))
    return True
