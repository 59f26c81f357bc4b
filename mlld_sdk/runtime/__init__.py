"""The runtime that carries a tree of agents inside a service.

`runtime` starts and stops everything that the agents share, finds what is in its tree, and runs until a signal comes,
with `signals` and `systemd`; `end` tells how it ended, `aio` is the same for coroutines, and `keeper` keeps its history
in the journal. `default_client` supervises the client of the plain functions. Programs, the command line and the
demonstrations come in by `Runtime`.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.runtime.aio import AsyncRuntime as AsyncRuntime
    from mlld_sdk.runtime.default_client import default_runtime as default_runtime
    from mlld_sdk.runtime.end import RuntimeEnd as RuntimeEnd
    from mlld_sdk.runtime.runtime import Runtime as Runtime
else:
    __all__, __getattr__, __dir__ = exports(__name__)
