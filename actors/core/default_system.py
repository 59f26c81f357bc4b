"""The process's own actor system: where `MyActor.start()` goes when no actor is running."""

import atexit
import os
import threading

from mlld_sdk.actors.core.context import current_cell
from mlld_sdk.actors.core.system import ActorSystem

_default: ActorSystem | None = None
_default_lock = threading.RLock()


def default_system() -> ActorSystem:
    """Return the process's own system, started at first use."""
    global _default
    system = _default
    if system is None or system.has_stopped():
        with _default_lock:
            system = _default
            if system is None or system.has_stopped():
                system = _default = ActorSystem("mlld-shared", in_pykka_registry=True)
    return system


def current_system() -> ActorSystem:
    """Return the system of the running actor, else the process's own."""
    cell = current_cell()
    if cell is None:
        return default_system()
    system = cell.system
    assert isinstance(system, ActorSystem)
    return system


def _at_exit() -> None:
    if _default is not None:
        _default.stop(2.0)


def _after_fork_in_child() -> None:
    global _default
    _default_lock.release()
    _default = None


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):  # see the forks of `system`
    os.register_at_fork(
        before=_default_lock.acquire, after_in_parent=_default_lock.release, after_in_child=_after_fork_in_child
    )
