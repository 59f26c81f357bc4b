"""The supervised client behind the module-level functions: the one child of a runtime that starts with the first call.

A runtime of its own, so that its end concerns nobody else: it keeps nothing on disk, cannot be attached to, and has
no limit of engines.
"""

from datetime import timedelta
from typing import Final

from mlld_sdk.agents.supervised_client import ClientHandle
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.client import functions
from mlld_sdk.client.client import Client
from mlld_sdk.runtime.runtime import Runtime
from mlld_sdk.supervision.backoff import Backoff
from mlld_sdk.supervision.spec import SupervisorSpec, budget, child, one_for_one

NAME: Final = "default"
"""Name of the runtime, the first part of every path in it."""

LIMIT: Final = budget(10, 60.0, then="stop")
"""Engines that may die within so many seconds; after one more the client is down until `close` is called."""

BACKOFF: Final = Backoff.of(0.01, most=5.0)
"""Pauses between its restarts, which calls wait out."""


def default_tree() -> SupervisorSpec:
    """Declare the tree of the default client, which has the options a client has by default."""
    return one_for_one(child(Client, name="client", budget=LIMIT, backoff=BACKOFF))


class DefaultClient(ClientHandle):
    """The handle of the default client, which carries the runtime it is supervised in.

    Attributes:
        runtime: That runtime.
    """

    def __init__(self) -> None:
        self.runtime: Runtime = Runtime(default_tree(), name=NAME).start()
        super().__init__(self.runtime.services, f"{NAME}/client")

    def close(self, timeout: float | timedelta = 0.0) -> int:
        """End the engines, as `Client.close` does, and the runtime with them: this handle is of no use after that."""
        cut_off = super().close(timeout)
        functions.let_go(self)  # before the runtime ends: who calls meanwhile is no concern of its
        self.runtime.stop(drain=False)
        return cut_off


def default_runtime() -> Runtime:
    """Return the runtime that supervises the default client, starting it if there is none: its tree, events, verdict.

    Raises:
        ConfigurationError: The program has put in a client of its own, which is not supervised.
    """
    client = functions.default_client()
    if not isinstance(client, DefaultClient):
        raise ConfigurationError(f"the default client is {client!r}, which no runtime supervises")
    return client.runtime
