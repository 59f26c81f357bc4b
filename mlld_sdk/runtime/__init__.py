"""The runtime that carries a tree of agents inside a service."""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.runtime.runtime import Runtime as Runtime
else:
    __all__, __getattr__, __dir__ = exports(__name__)
