"""The management calls of a running supervisor."""

from collections.abc import Iterable
from typing import Any

from mlld_sdk.actors.core.context import current_cell
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.tasks.task_actor import callers
from mlld_sdk.base.durations import Deadline
from mlld_sdk.supervision.decisions import requests
from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, SupervisorSpec, child
from mlld_sdk.supervision.supervisor import ManagementBatch, ManagementCall

Ref = ActorRef[Any]

CALL_TIMEOUT = 30.0
"""Seconds a call waits when nothing else is said: a child's start may take that long."""

PORTION = 256
"""Children that `start_children` hands over at a time, so that others are served in between."""


class SupervisorRef:
    """The management calls of one running supervisor. Any thread and any actor may use it.

    A child that calls its own supervisor while that one waits for it (from `on_start` or a stop hook) is refused with
    `SupervisorBusy`; in OTP both would wait for ever.
    """

    __slots__ = ("ref",)

    def __init__(self, ref: Ref) -> None:
        self.ref: Ref = ref

    def __repr__(self) -> str:
        return f"<SupervisorRef {self.ref}>"

    def start_child(self, child: object, *, timeout: float | None = CALL_TIMEOUT) -> Ref | None:
        """Add a child and start it.

        Args:
            child: Child spec, supervisor spec or actor class.
            timeout: Seconds to wait.

        Returns:
            The child, or `None` when it declined.

        Raises:
            InvalidOption: The spec is wrong; the supervisor was not asked.
            ChildAlreadyStarted: One of that name runs, here or elsewhere.
            ChildAlreadyPresent: One of that name is declared and does not run.
            ChildStartFailed: Its start failed; nothing was added.
            TooManyChildren: The supervisor is full.
        """
        found: Ref | None = self._ask(requests.StartChild(_spec_of(child)), timeout)
        return found

    def start_children(
        self, children: Iterable[Any], *, timeout: float | None = CALL_TIMEOUT
    ) -> list[Ref | Exception | None]:
        """Add many children and start them: as if as many callers used `start_child`, at about half the cost.

        Each child stands for itself: one that fails or is refused changes nothing for the others. They are handed over
        in portions of `PORTION`, the next one when all of the one before have started; under a dynamic supervisor
        those of one portion start side by side. In between the supervisor serves others.

        Args:
            children: Child specs, supervisor specs or actor classes.
            timeout: Seconds to wait for all of them.

        Returns:
            For each, in the same order, what `start_child` would have returned or raised: the child, `None` when it
            declined, or the error.

        Raises:
            InvalidOption: A spec is wrong; the supervisor was not asked for any of them.
            AskTimeout: They took longer. What was handed over by then goes on, the rest is not started.
        """
        wanted = tuple(requests.StartChild(one if isinstance(one, ChildSpec) else _spec_of(one)) for one in children)
        deadline = Deadline(timeout)
        found: list[Ref | Exception | None] = []
        for at in range(0, len(wanted), PORTION):
            left = None if timeout is None else deadline.left
            found += self.ref.call(ManagementBatch(wanted[at : at + PORTION], _callers()), timeout=left)
        return found

    def restart_child(self, name: str, *, timeout: float | None = CALL_TIMEOUT) -> Ref | None:
        """Start a declared child that does not run.

        Raises:
            ChildNotFound: There is none of that name.
            ChildRunning: It runs.
            ChildRestarting: A restart is planned.
            ChildStartFailed: Its start failed; it stays declared.
        """
        found: Ref | None = self._ask(requests.RestartChild(name), timeout)
        return found

    def terminate_child(self, child: str | Ref, why: str = "", *, timeout: float | None = CALL_TIMEOUT) -> None:
        """Stop a child, or call its planned restart off; never restarts, never counts.

        Args:
            child: Its name. Under a dynamic supervisor what it is called in its path, or its reference; while it is
                down, that to what was up last.
            why: Shown in the tree as long as it is down.
            timeout: Seconds to wait.

        Raises:
            ChildNotFound: There is no such child.
        """
        self._ask(requests.TerminateChild(child, why), timeout)

    def delete_child(self, name: str, *, timeout: float | None = CALL_TIMEOUT) -> None:
        """Forget a child that does not run.

        Raises:
            ChildNotFound: There is none of that name.
            ChildRunning: Terminate it first.
            ChildRestarting: Terminate it first.
        """
        self._ask(requests.DeleteChild(name), timeout)

    def get_spec(self, name: str, *, timeout: float | None = CALL_TIMEOUT) -> ChildSpec:
        """Get the complete spec of a child; raises `ChildNotFound`."""
        spec: ChildSpec = self._ask(requests.GetSpec(name), timeout)
        return spec

    def which_children(self, *, timeout: float | None = CALL_TIMEOUT) -> list[requests.ChildRow]:
        """List the children, most recently added first; a restart moves nothing."""
        rows: list[requests.ChildRow] = self._ask(requests.WhichChildren(), timeout)
        return rows

    def count_children(self, *, timeout: float | None = CALL_TIMEOUT) -> requests.ChildCounts:
        """Count the children."""
        counts: requests.ChildCounts = self._ask(requests.CountChildren(), timeout)
        return counts

    def update(self, spec: SupervisorSpec | DynamicSpec, *, timeout: float | None = CALL_TIMEOUT) -> None:
        """Replace flags and specs while it runs.

        Known children get their new spec and run on; new ones are added, stopped; those that are not in the new list
        stay. Nothing is started or stopped.
        """
        self._ask(requests.Update(spec), timeout)

    def _ask(self, request: requests.ManagementRequest, timeout: float | None) -> Any:  # noqa: ANN401
        return self.ref.call(ManagementCall(request, _callers()), timeout=timeout)


def _spec_of(one: object) -> ChildSpec:
    return one if isinstance(one, ChildSpec) else child(one)


def _callers() -> tuple[Ref, ...]:
    """Return on whose behalf the current code runs: its actor, and those that started the task it is part of."""
    cell = current_cell()
    return callers() if cell is None else (cell.ref, *callers())
