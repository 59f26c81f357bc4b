"""The client's calls as plain functions, on one supervised client for the whole program, made when first needed.

They take what the methods of `Client` take. Which engine they use is decided like for any client: `MLLD_ENGINE`, else
the `mlld` on PATH.
"""

import inspect
import os
import pkgutil
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from mlld_sdk.client.client import Client
from mlld_sdk.client.requests import ClientRequests

P = ParamSpec("P")
R = TypeVar("R")

SUPERVISED: Final = "mlld_sdk.runtime.default_client:DefaultClient"
"""What is made when a client is first needed, by name, since it lies above this room."""


class Closes(Protocol):
    """A client, as far as its end is concerned."""

    def close(self, timeout: float | timedelta = 0.0) -> int:
        """End the engines."""


_lock = threading.Lock()
_client: ClientRequests | None = None
_end: Closes | None = None  # the same client
_inherited: object = None  # the client of the process this one was forked from, which is not to be taken apart here


def default_client() -> ClientRequests:
    """Return the client these functions use, making it if there is none: a supervised one, in a runtime of its own."""
    with _lock:
        if _client is None:
            _put(pkgutil.resolve_name(SUPERVISED)())
        assert _client is not None
        return _client


def set_default_client(client: Client | None) -> None:
    """Make these functions use that client from now on, and close the one before. `None`: a new one when needed."""
    with _lock:
        before = _end
        _put(client)
    if before is not None and before is not client:
        before.close()


def close(timeout: float | timedelta = 0.0) -> int:
    """End the default client's engines, if it has any; does what `Client.close` does. The next call makes a new one."""
    client = _end
    if client is None:
        return 0
    try:
        return client.close(timeout)
    finally:
        let_go(client)


def let_go(client: object) -> None:
    """Use that client no more, if it is still the default one: the next call makes a new one."""
    with _lock:
        if _end is client:
            _put(None)


def _put(client: Any) -> None:  # noqa: ANN401 - a client of either kind
    global _client, _end
    _client = _end = client


def _after_fork() -> None:
    """Leave a supervised client to the parent, whose threads are not here; the next call makes one for the child."""
    global _lock, _inherited
    _lock = threading.Lock()
    if not isinstance(_client, Client):
        _inherited = _client
        _put(None)


os.register_at_fork(after_in_child=_after_fork)


def _on_default(method: Callable[Concatenate[Client, P], R]) -> Callable[P, R]:
    """Return a function that calls this method of the default client, with its signature and first line."""
    name = method.__name__

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound: Callable[P, R] = getattr(default_client(), name)
        return bound(*args, **kwargs)

    signature = inspect.signature(method)
    own = {
        "__doc__": f"{(method.__doc__ or '').splitlines()[0]} See `Client.{name}`.",
        "__module__": __name__,
        "__qualname__": name,
        "__signature__": signature.replace(parameters=[*signature.parameters.values()][1:]),
    }
    vars(call).pop("__wrapped__")
    for attribute, value in own.items():
        setattr(call, attribute, value)
    return call


process = _on_default(Client.process)
process_result = _on_default(Client.process_result)
process_async = _on_default(Client.process_async)
execute = _on_default(Client.execute)
execute_async = _on_default(Client.execute_async)
analyze = _on_default(Client.analyze)
fs_status = _on_default(Client.fs_status)
sign = _on_default(Client.sign)
verify = _on_default(Client.verify)
sign_content = _on_default(Client.sign_content)
