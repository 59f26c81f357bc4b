"""A few threads of the process for what may take a moment and is not waited for: engines started and put away."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from mlld_sdk.transport.reactor import shared_reactor

THREADS: Final = 4
"""Tasks of each kind that are run at once, in the whole process; more wait their turn."""


@functools.lru_cache
def _threads(kind: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix=f"mlld-shared-{kind}")


def run(function: Callable[..., object], *args: Any, kind: str = "background") -> None:
    """Call `function(*args)` soon on another thread; returns at once, so the caller may hold locks."""
    try:
        _threads(kind).submit(function, *args)
    except RuntimeError:  # the interpreter is ending, and with it the pool; what is under way may still need this
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=function, args=args, daemon=True).start()


run_slow = functools.partial(run, kind="slow")
"""Do as `run` with what may wait seconds for an engine to end, on threads that nothing else waits for."""


def run_later(delay: float, function: Callable[..., object], *args: Any) -> None:
    """Call `function(*args)` in `delay` seconds on another thread."""
    clock = shared_reactor()
    clock.call_at(clock.now() + delay, lambda: run(function, *args))


# A forked child has none of the threads.
os.register_at_fork(after_in_child=_threads.cache_clear)
