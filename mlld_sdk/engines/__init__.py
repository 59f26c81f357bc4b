"""The one way from a request to an engine process.

Kinds of engines and how they are started, pools and quotas of them, one queue for all who wait for one, checkpoints,
and the requests themselves. Clients, agents, pools and runs come in; nothing here knows actors, runs or the journal.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.engines.check import check_engines as check_engines
    from mlld_sdk.engines.checkpoints import Checkpoints as Checkpoints
    from mlld_sdk.engines.pool import Recycle as Recycle
    from mlld_sdk.transport.limits import EngineLimits as EngineLimits
else:
    __all__, __getattr__, __dir__ = exports(__name__)
