"""Running as a service: until a signal comes or the tree ends, with systemd kept informed."""

import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.runtime.signals import SignalQueue
from mlld_sdk.runtime.systemd import NotifiedRuntime, SystemdNotifier
from mlld_sdk.supervision.tree import ShutdownReport

EXIT_CLEAN: Final = 0
EXIT_GAVE_UP: Final = 1
EXIT_FORCED: Final = 75


class ServedRuntime(NotifiedRuntime, Protocol):
    """What running as a service needs of a started runtime."""

    def stop(self, *, drain: bool = True) -> ShutdownReport:
        """Stop in order."""


def serve(runtime: ServedRuntime, root: ActorRef[Any], kill: Callable[[], None], signals: SignalQueue) -> int:
    """Wait for SIGTERM, SIGINT or the end of the tree, then stop in order, or at once at a second signal.

    Args:
        runtime: The runtime, started.
        root: The root of its tree.
        kill: Ends everything at once.
        signals: Where signals arrive.

    Returns:
        The exit status; see `Runtime.run_forever`.
    """
    monitor = root.monitor(lambda _: signals.put("ended"))
    with SystemdNotifier(runtime) as notifier:
        signal = signals.get()
        notifier.stopping()
    if signal == "ended":
        runtime.stop(drain=False)
        return EXIT_GAVE_UP
    monitor.cancel()
    reports: list[ShutdownReport] = []

    def stop() -> None:
        reports.append(runtime.stop())
        signals.put("stopped")

    stopper = threading.Thread(target=stop, name=f"{runtime.name}-stop")
    stopper.start()
    in_order = signals.get() in ("stopped", "ended")
    if not in_order:
        kill()
    stopper.join()
    return EXIT_CLEAN if in_order and reports and reports[0].clean else EXIT_FORCED
