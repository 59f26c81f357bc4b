"""Telling systemd the state of a service: `READY=1`, `STATUS=`, `STOPPING=1`, and a watchdog that is fed by progress.

Without `NOTIFY_SOCKET` in the environment nothing here does anything. What counts as progress, numbered because tests
cite it; between two feedings of the watchdog all of these must have moved:

- SD-1 The actors: a message was sent to a probe actor and answered, so mailboxes and workers turn.
- SD-2 The engines: a function was called on the I/O thread, so answers are read.
- SD-3 The runs: the journal answered a question.
- SD-4 Supervision: no supervisor has been at one and the same message all the time.
- SD-5 The tree: it has not ended.

An agent that is stuck is no reason to stop feeding: that is what supervision is for. If supervision itself is stuck,
nothing inside can help: systemd gets no more feedings and restarts the service.
"""

import contextlib
import os
import socket
import threading
from types import TracebackType
from typing import Any, Final, Self

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.base.durations import Deadline
from mlld_sdk.base.errors import MlldError
from mlld_sdk.control.server import RuntimeView
from mlld_sdk.transport.reactor import shared_reactor

STATUS_EVERY: Final = 5.0
"""Seconds between two looks at the verdict when there is no watchdog to feed."""


def notify(*lines: str) -> bool:
    """Send lines to systemd; returns false when it does not listen, which is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way:
            way.settimeout(1.0)
            way.connect(f"\0{address[1:]}" if address[0] == "@" else address)
            way.sendall("\n".join(lines).encode())
    except OSError:
        return False
    return True


def watchdog_interval() -> float | None:
    """Return the seconds within which systemd wants to hear from this process; `None` when it does not."""
    microseconds, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1e6


class _Probe(Actor):
    """Answers, and so proves that actors are being run."""

    def on_receive(self, message: Any) -> Any:
        return message


class Progress:
    """Finds out whether a runtime still moves."""

    def __init__(self, runtime: RuntimeView) -> None:
        self._runtime = runtime
        self._probe: ActorRef[_Probe] = runtime.services.system.start(_Probe, label="systemd-probe")

    def missing(self, within: float) -> str:
        """Return what has not moved within so many seconds; empty when all has."""
        deadline, end = Deadline(within), self._runtime.wait(0)
        if end is not None:  # SD-5
            return f"the tree {end}"
        turned = threading.Event()
        shared_reactor().call_soon(turned.set)
        try:
            self._probe.call("turn", timeout=within)  # SD-1
        except MlldError as error:
            return f"actors do not answer: {error.message}"
        if not turned.wait(deadline.left):  # SD-2
            return "the I/O thread does not turn"
        try:
            self._runtime.journal.unfinished_kinds()  # SD-3
        except MlldError as error:
            return f"the journal does not answer: {error.message}"
        for ref in self._runtime.supervisors():  # SD-4
            busy = ref.info().current_for
            if busy is not None and busy > within:
                return f"{ref.path} has been at one message for {busy:.0f} s"
        return ""

    def close(self) -> None:
        """End the probe."""
        self._probe.kill("the notifier ended")


class SystemdNotifier:
    """Keeps systemd informed about one runtime, from `READY=1` on; use it in a `with` block."""

    def __init__(self, runtime: RuntimeView) -> None:
        self._runtime = runtime
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if os.environ.get("NOTIFY_SOCKET") and notify("READY=1", f"STATUS={self._status()}"):
            self._thread = threading.Thread(target=self._attend, name=f"{self._runtime.name}-systemd", daemon=True)
            self._thread.start()
        return self

    def stopping(self) -> None:
        """Tell systemd that the service is being stopped; now `TimeoutStopSec` counts, the watchdog no more."""
        self._over.set()
        if self._thread is not None:
            notify("STOPPING=1", "STATUS=letting runs end, then stopping")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(STATUS_EVERY)

    def _attend(self) -> None:
        interval = watchdog_interval()
        pause = STATUS_EVERY if interval is None else interval / 3
        with contextlib.closing(Progress(self._runtime)) as progress:
            while not self._over.wait(pause):
                lines = [f"STATUS={self._status()}"]
                if interval is not None:
                    stuck = progress.missing(pause)
                    lines = [f"STATUS={stuck}"] if stuck else ["WATCHDOG=1", *lines]
                if not self._over.is_set():
                    notify(*lines)

    def _status(self) -> str:
        verdict = self._runtime.verdict()
        worst = f": {verdict.concerns[0].path} {verdict.concerns[0].why}" if verdict.concerns else ""
        return " ".join(f"{verdict}{worst}".split())
