"""Topics and process groups: who wants what is broadcast, and who belongs together under a name.

A subscriber that is too slow loses messages rather than memory, and is told so. It stands on `core` and on the rows of
`registry`.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.actors.pubsub.errors import NotJoined as NotJoined
    from mlld_sdk.actors.pubsub.errors import Unsubscribed as Unsubscribed
    from mlld_sdk.actors.pubsub.groups import GroupChanged as GroupChanged
    from mlld_sdk.actors.pubsub.groups import GroupMonitor as GroupMonitor
    from mlld_sdk.actors.pubsub.groups import Groups as Groups
    from mlld_sdk.actors.pubsub.outlet import Lagged as Lagged
    from mlld_sdk.actors.pubsub.outlet import Resumed as Resumed
    from mlld_sdk.actors.pubsub.pubsub import Listener as Listener
    from mlld_sdk.actors.pubsub.pubsub import PubSub as PubSub
    from mlld_sdk.actors.pubsub.pubsub import Subscription as Subscription
else:
    __all__, __getattr__, __dir__ = exports(__name__)
