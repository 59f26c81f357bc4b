"""What tests of supervised agents need: a clock that stands still, a recorder of events, chaos, and a leak check.

With pytest all of it comes as fixtures (`docs/testing.md`); everything here works without pytest too. Nothing of the
library imports this room, and importing it imports nothing: the pytest plugin is loaded in every session of a project
that has the library.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.base.env import Env as Env
    from mlld_sdk.testing.chaos import Chaos as Chaos
    from mlld_sdk.testing.clock import FakeClock as FakeClock
    from mlld_sdk.testing.leaks import Leaked as Leaked
    from mlld_sdk.testing.leaks import leak_check as leak_check
    from mlld_sdk.testing.recorder import Recorder as Recorder
    from mlld_sdk.testing.recorder import eventually as eventually
else:
    __all__, __getattr__, __dir__ = exports(__name__)
