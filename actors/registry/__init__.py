"""Names for actors: registries of keys, and tables with an owner.

Everything here is data shared by threads, kept for live actors: reading costs no message, and what an actor holds is
gone before anyone learns of its end. It stands on `core` only; topics may use it.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.actors.registry.errors import LockTimeout as LockTimeout
    from mlld_sdk.actors.registry.errors import NameTaken as NameTaken
    from mlld_sdk.actors.registry.errors import NotRegistered as NotRegistered
    from mlld_sdk.actors.registry.errors import TableClosed as TableClosed
    from mlld_sdk.actors.registry.errors import TableFull as TableFull
    from mlld_sdk.actors.registry.registry import KeyRegistered as KeyRegistered
    from mlld_sdk.actors.registry.registry import KeyUnregistered as KeyUnregistered
    from mlld_sdk.actors.registry.registry import Registration as Registration
    from mlld_sdk.actors.registry.registry import Registry as Registry
    from mlld_sdk.actors.registry.table import Table as Table
    from mlld_sdk.actors.registry.table import TableGiven as TableGiven
else:
    __all__, __getattr__, __dir__ = exports(__name__)
