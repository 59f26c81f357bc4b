"""Agents and pools as a program declares and uses them."""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.agents.agent import Agent as Agent
    from mlld_sdk.agents.handles import AgentHandle as AgentHandle
    from mlld_sdk.agents.pool import Checkout as Checkout
    from mlld_sdk.agents.pool import Pool as Pool
    from mlld_sdk.agents.pool import PoolHandle as PoolHandle
else:
    __all__, __getattr__, __dir__ = exports(__name__)
