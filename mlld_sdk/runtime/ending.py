"""How a runtime ends: judged by what its root has done, told to everybody who waits, and once to `on_end`."""

import threading
from collections.abc import Callable

from mlld_sdk.actors.core.ref import Down
from mlld_sdk.agents.services import Services
from mlld_sdk.base.durations import Deadline, pause
from mlld_sdk.base.env import Env
from mlld_sdk.runs.errors import OwnerGone
from mlld_sdk.runtime.end import EndNotice, RuntimeEnd, RuntimeNotRunning
from mlld_sdk.supervision.tree import Tree

OWNERS_END = 1.0
"""Seconds agents and pools get to end by themselves, and to say why to those who wait for their engines."""

LOOK_AGAIN = 0.005

ON_END = 5.0
"""Seconds a program that ends with its runtime waits for `on_end`."""


class RuntimeEnding:
    """The end of one runtime, from the moment its tree has started.

    Args:
        name: The runtime's.
        env: Clocks.
        on_end: Called when the tree has ended by itself.

    Attributes:
        notice: Where it is noted.
        stopping: Whether the runtime was told to stop: what comes now is no end by itself, unless the root gave up.
    """

    def __init__(self, name: str, env: Env, on_end: Callable[[RuntimeEnd], object] | None) -> None:
        self.notice = EndNotice()
        self.stopping = False
        self._name = name
        self._env = env
        self._on_end = on_end
        self._services: Services | None = None
        self._tree: Tree | None = None
        self._thread: threading.Thread | None = None

    def share(self, services: Services) -> None:
        """Take what is told of the end: those services."""
        self._services = services

    def watch(self, tree: Tree) -> None:
        """Watch a tree that has started."""
        self._tree = tree
        tree.root.monitor(self._root_ended)

    def judged(self) -> RuntimeEnd:
        """Judge the end of the tree, as far as it has come: what the root has given up on, no stop changes any more."""
        tree = self._tree
        why = "" if tree is None else tree.gave_up or ("" if self.stopping else tree.crashed)
        if why:
            return RuntimeEnd(runtime=self._name, how="gave_up", at=self._env.wall(), why=why)
        if self.stopping:
            return RuntimeEnd(runtime=self._name, how="stopped", at=self._env.wall(), why="it was told to")
        return RuntimeEnd(runtime=self._name, how="ended", at=self._env.wall(), why="the tree was done")

    def refusal(self) -> RuntimeNotRunning:
        """Make the error of somebody who asks for what is going or gone."""
        end = self.notice.end or self.judged()
        if end.gave_up or self.notice.end is not None:
            return end.error()
        doing = "is being stopped" if self.stopping else "is ending"
        return RuntimeNotRunning(f"runtime {self._name!r} {doing}", hint="make another one when it has ended")

    def not_started(self, error: BaseException) -> None:
        """Take note of a start that failed."""
        self._note(RuntimeEnd(runtime=self._name, how="stopped", at=self._env.wall(), why=f"it did not start: {error}"))

    def end_waits(self) -> None:
        """Tell those that wait for runs, when a stop lets no run end any more; runs that wait end with their agents."""
        end, services = self.judged(), self._services
        assert services is not None, "what is stopped has been started"
        services.journal.end_waits(end.error if end.gave_up else None, inside=False)

    def stopped(self) -> None:
        """Take note that a stop is done."""
        self._note(self.judged())

    def join(self) -> None:
        """Let `on_end` come to its end, within bounds."""
        if self._thread is not None:
            self._thread.join(ON_END)

    def _root_ended(self, _: Down) -> None:
        """Tell everybody of an end that came by itself; in the thread that ends the root, so nothing here may wait."""
        end = self.judged()
        if end.how != "stopped":
            self._note(end)

    def _note(self, end: RuntimeEnd) -> None:
        """Refuse what cannot be done any more, and wake all who wait for something that will not come."""
        services = self._services
        assert services is not None, "what ends has been begun"
        services.over = services.over or end.error
        if end.how != "stopped":
            services.journal.end_waits(end.error)
        services.context.look_again()
        if not self.notice.note(end) or end.how == "stopped":
            return
        self._thread = threading.Thread(
            target=self._afterwards, args=(services, end), name=f"{self._name}-end", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread is left
            self._thread = None
            services.system.callback_failed(error)

    def _afterwards(self, services: Services, end: RuntimeEnd) -> None:
        """End the engines that were kept for successors, and call `on_end`."""
        try:
            _await_owners(services)
            services.close()
        finally:
            if self._on_end is not None:
                try:
                    self._on_end(end)
                except BaseException as error:  # noqa: BLE001 - whatever it raises is not felt by anybody
                    services.system.callback_failed(error)


def _await_owners(services: Services) -> None:
    """See to it that what waits for an engine is told why by its agent or pool, whose end workers clean up after."""
    deadline = Deadline(OWNERS_END)
    for name, requests in list(services.requests.items()):
        source = requests.source
        while source.scope.over is None and not deadline.is_over:
            pause(LOOK_AGAIN)
        source.stop(source.scope.over or OwnerGone(f"{name} ended"))  # again, since that may be half done
