"""What the control room needs to see of a runtime; `mlld_sdk.runtime` has it all."""

from typing import Any, Protocol

from mlld_sdk.agents.handles import AgentHandle
from mlld_sdk.agents.services import Services
from mlld_sdk.base.env import Env
from mlld_sdk.journal import Journal
from mlld_sdk.supervision.snapshot import NodeView
from mlld_sdk.supervision.verdict import Verdict
from mlld_sdk.telemetry.bus import Bus
from mlld_sdk.telemetry.history import History


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

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        """Find an agent, a pool or any other place."""

    def agent(self, name: str) -> AgentHandle:
        """Find an agent."""

    def snapshot(self) -> NodeView:
        """Take a picture of the tree."""

    def tree(self) -> str:
        """Print the tree."""

    def verdict(self) -> Verdict:
        """Return how it is, and what is wrong."""

    def pause(self, path: str, reason: str) -> None:
        """Stop what is at a place and keep it stopped."""

    def resume(self, path: str) -> None:
        """Start what was paused again."""

    def restart(self, path: str, reason: str) -> None:
        """Stop what is at a place and start it again."""
