"""Agents, pools and supervised clients as a program declares and uses them.

Their options, the actors that own engines and take runs from the journal, and the handles that programs hold. The
runtime starts them in a tree; what works on a single run lies below, in `runs`, and the way to an engine in
`engines`.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.agents.agent import Agent as Agent
    from mlld_sdk.agents.handles import AgentHandle as AgentHandle
    from mlld_sdk.agents.pool import Checkout as Checkout
    from mlld_sdk.agents.pool import Pool as Pool
    from mlld_sdk.agents.pool import PoolHandle as PoolHandle
    from mlld_sdk.agents.supervised_client import ClientHandle as ClientHandle
else:
    __all__, __getattr__, __dir__ = exports(__name__)
