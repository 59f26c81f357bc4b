"""The client's calls as plain functions, on one client for the whole program that is made when first needed.

They take what the methods of `Client` take. Which engine they use is decided like for any client: `MLLD_ENGINE`, else
the `mlld` on PATH.
"""

import inspect
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from mlld_sdk.client.client import Client

P = ParamSpec("P")
R = TypeVar("R")

_lock = threading.Lock()
_client: Client | None = None


def default_client() -> Client:
    """Return the client these functions use, making it if there is none."""
    global _client
    with _lock:
        if _client is None:
            _client = Client()
        return _client


def set_default_client(client: Client | None) -> None:
    """Make these functions use that client from now on, and close the one before. `None`: a new one when needed."""
    global _client
    with _lock:
        before, _client = _client, client
    if before is not None and before is not client:
        before.close()


def close(timeout: float | timedelta = 0.0) -> int:
    """End the default client's engines, if it has any; does what `Client.close` does. The next call makes a new one."""
    global _client
    client = _client
    if client is None:
        return 0
    cut_off = client.close(timeout)
    with _lock:
        _client = None if _client is client else _client
    return cut_off


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
