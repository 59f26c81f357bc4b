"""State machines as actors, in the manner of `gen_statem`: declared states, timeouts, postponed events, a graph.

`engine` decides what a machine does next, as pure functions; `statem` is the actor around it; `rules` reads what a
class declares, and `graph` draws it. It stands on `core` only.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.actors.statem.engine import Action as Action
    from mlld_sdk.actors.statem.engine import Happening as Happening
    from mlld_sdk.actors.statem.engine import Outcome as Outcome
    from mlld_sdk.actors.statem.errors import UndeclaredTransition as UndeclaredTransition
    from mlld_sdk.actors.statem.errors import UnhandledEvent as UnhandledEvent
    from mlld_sdk.actors.statem.graph import Graph as Graph
    from mlld_sdk.actors.statem.rules import State as State
    from mlld_sdk.actors.statem.rules import anywhere as anywhere
    from mlld_sdk.actors.statem.rules import goto as goto
    from mlld_sdk.actors.statem.statem import StateMachine as StateMachine
    from mlld_sdk.actors.statem.statem import cancel_event_timeout as cancel_event_timeout
    from mlld_sdk.actors.statem.statem import cancel_state_timeout as cancel_state_timeout
    from mlld_sdk.actors.statem.statem import cancel_timeout as cancel_timeout
    from mlld_sdk.actors.statem.statem import event_timeout as event_timeout
    from mlld_sdk.actors.statem.statem import keep as keep
    from mlld_sdk.actors.statem.statem import next_event as next_event
    from mlld_sdk.actors.statem.statem import postpone as postpone
    from mlld_sdk.actors.statem.statem import repeat as repeat
    from mlld_sdk.actors.statem.statem import state_timeout as state_timeout
    from mlld_sdk.actors.statem.statem import stop as stop
    from mlld_sdk.actors.statem.statem import timeout as timeout
    from mlld_sdk.actors.statem.statem import update_state_timeout as update_state_timeout
    from mlld_sdk.actors.statem.statem import update_timeout as update_timeout
else:
    __all__, __getattr__, __dir__ = exports(__name__)
