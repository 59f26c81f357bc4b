"""Talking to an agent by its name: the handle outlives every incarnation of what it names."""

import asyncio
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypeVar, Unpack

from mlld_sdk.actors.core.errors import ActorDead
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.agents.owner import AskStatus, Configure, Drain, OwnerStatus, TakeWork
from mlld_sdk.agents.services import Services
from mlld_sdk.base.durations import seconds
from mlld_sdk.base.errors import InfrastructureError, InvalidRequest, MlldError
from mlld_sdk.client.aio import AsyncRequests
from mlld_sdk.client.handles import ExecuteHandle, Handle, ProcessHandle
from mlld_sdk.engines.requests import ENGINE_FAILURES
from mlld_sdk.engines.requests_async import AsyncPort, OnEnd
from mlld_sdk.runs.errors import OwnerGone
from mlld_sdk.runs.handles import RunHandle
from mlld_sdk.scripts.params import RunOptions
from mlld_sdk.scripts.types import AnalyzeResult, ExecuteResult
from mlld_sdk.supervision.breaker import Breaker
from mlld_sdk.supervision.errors import BreakerOpen
from mlld_sdk.transport.errors import CallCancelled, UnserialisableParams

T = TypeVar("T")
H = TypeVar("H", bound=Handle[Any])

NO_NEWS: Final = (CallCancelled, InvalidRequest, UnserialisableParams, OwnerGone)
"""What tells a circuit breaker nothing: requests that were taken back or could not be sent, and what the end of the
actor means to those who waited, since that end is told by itself."""

ANSWER_TIMEOUT = 5.0
"""Seconds an agent may take to say how it is; its mailbox never waits for a script."""


class AgentUnavailable(InfrastructureError):
    """Nobody works under this name now: it is starting again, was stopped, or its supervisor gave up.

    Attributes:
        agent: The name.
    """

    code = "AGENT_UNAVAILABLE"

    def __init__(self, agent: str) -> None:
        super().__init__(
            f"{agent} is not running", hint="ask again in a moment, or submit a run: it waits until the agent is back"
        )
        self.agent = agent


class Named:
    """What handles to agents and pools have in common.

    Attributes:
        name: Path in the tree.
    """

    def __init__(self, services: Services, name: str) -> None:
        self.name = name
        self._services = services

    @property
    def ref(self) -> ActorRef[Any] | None:
        """The incarnation that lives now, if one does."""
        return self._services.whereis(self.name)

    def execute(
        self, filepath: str | os.PathLike[str], payload: Any = None, **options: Unpack[RunOptions]
    ) -> ExecuteResult:
        """Run a script file on an engine of its own, once, and wait for the result.

        A single request and no run: it is not written down, and not repeated if the engine fails.

        Raises:
            TaskError: The script failed.
            BreakerOpen: The circuit breaker in front of it refuses requests now, and says when to try again.
            InfrastructureError: The engine failed, or none was free in time, or nobody is there (`AgentUnavailable`).
        """
        return self._use(lambda port: port.execute(filepath, payload, options))

    def process(
        self,
        script: str,
        *,
        file_path: str | os.PathLike[str] | None = None,
        payload: Any = None,
        **options: Unpack[RunOptions],
    ) -> str:
        """Run script text as `execute` runs a file, and return its output."""
        return self._use(lambda port: port.output(script, file_path, payload, options))

    def execute_async(
        self, filepath: str | os.PathLike[str], payload: Any = None, **options: Unpack[RunOptions]
    ) -> ExecuteHandle:
        """Begin what `execute` does and return its handle at once: to watch, steer, cancel or await.

        Its errors are those of `execute`; what keeps it from being begun at all is raised here.
        """
        where, (port, guard) = os.fspath(filepath), self._way()
        if guard is None:
            return port.begin_execute(ExecuteHandle, where, payload, options)
        return self._guarded(port, guard, lambda then: port.begin_execute(ExecuteHandle, where, payload, options, then))

    def process_async(
        self,
        script: str,
        *,
        file_path: str | os.PathLike[str] | None = None,
        payload: Any = None,
        **options: Unpack[RunOptions],
    ) -> ProcessHandle:
        """Begin what `process` does and return its handle at once."""
        where, (port, guard) = None if file_path is None else os.fspath(file_path), self._way()
        if guard is None:
            return port.begin_process(ProcessHandle, script, where, payload, options)
        return self._guarded(
            port, guard, lambda then: port.begin_process(ProcessHandle, script, where, payload, options, then)
        )

    def analyze(self, filepath: str | os.PathLike[str], *, timeout: float | None = 30.0) -> AnalyzeResult:
        """Look at a script without running it."""
        return self._use(lambda port: port.analyze(filepath, timeout))

    @property
    def aio(self) -> "AsyncNamed":
        """The same for asyncio: nothing blocks the loop, and no thread waits."""
        return AsyncNamed(self)

    def status(self) -> OwnerStatus:
        """Say what it is doing; answers while scripts run."""
        status: OwnerStatus = self._ask(AskStatus())
        return status

    def wait_until_up(self, timeout: float | timedelta = 30.0) -> bool:
        """Wait until somebody works under this name, and say whether that was so in time.

        After a request that failed with its engine this waits for the next incarnation, never for the one that is
        about to end. It is woken by the supervisor; nothing is polled.
        """
        tree = self._services.tree
        return tree is not None and tree.context.wait_for(self._is_up, seconds(timeout))

    def _is_up(self) -> bool:
        port = self._services.ports.get(self.name)
        return port is not None and not port.condemned and self.ref is not None

    def configure(self, **changes: Any) -> None:
        """Change options while it works, without dropping engines or requests.

        Raises:
            ConfigurationError: The option cannot be changed so, or the value is wrong; nothing was changed.
        """
        self._ask(Configure(changes))

    def drain(self, timeout: float | timedelta = 60.0) -> None:
        """Let it take no more runs, and wait until those it works on have ended.

        An agent takes them again after `resume`; a pool leases engines again when it was restarted.

        Raises:
            AskTimeout: They have not, in that time; it goes on draining.
        """
        self._ask(Drain(), seconds(timeout))

    def looks_at_files(self, options: RunOptions) -> bool:
        """Whether beginning a request with these options may wait for the disk."""
        port = self._services.ports.get(self.name)
        return port is not None and port.looks_at_files(options)

    def _ask(self, message: Any, timeout: float = ANSWER_TIMEOUT) -> Any:
        ref = self.ref
        if ref is None:
            raise AgentUnavailable(self.name)
        try:
            return ref.call(message, timeout=timeout)
        except ActorDead:
            raise AgentUnavailable(self.name) from None

    def _use(self, request: Callable[[AsyncPort], T]) -> T:
        port, guard = self._way()
        if guard is None:
            return request(port)
        with guard.acquire() as permit:
            try:
                return request(port)
            except MlldError as error:
                if self._says_nothing(port, error):
                    permit.withdraw()
                raise

    def _guarded(self, port: AsyncPort, guard: Breaker, request: Callable[[OnEnd], H]) -> H:
        """Begin a request if the breaker lets it through, and tell the breaker how it ended."""
        permit = guard.acquire()

        def over(error: BaseException | None) -> None:
            if self._says_nothing(port, error):
                permit.withdraw()
            else:
                permit.settle(error)

        try:
            return request(over)
        except BaseException as error:  # the first word counts, should it have been said
            over(error)
            raise

    def _says_nothing(self, port: AsyncPort, error: BaseException | None) -> bool:
        """Whether the breaker is to learn nothing from an error: the caller's own doing, or told by somebody else."""
        return isinstance(error, NO_NEWS) or (port.ends_owner and isinstance(error, ENGINE_FAILURES))

    def _way(self) -> tuple[AsyncPort, Breaker | None]:
        """Find the way to the engines, and the breaker in front of it."""
        found, port = self._services.guarded(self.name), self._services.ports.get(self.name)
        if found is None or port is None or port.condemned:
            raise self._nobody(self._services.breaker(self.name))
        return port, found[1]

    def _nobody(self, guard: Breaker | None) -> InfrastructureError:
        view = None if guard is None else guard.view()
        if view is not None and view.retry_after:
            return BreakerOpen(view.name, view.retry_after)
        return AgentUnavailable(self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class AgentHandle(Named):
    """An agent by its name."""

    def run(
        self,
        payload: Any = None,
        *,
        run_id: str | None = None,
        key: str | None = None,
        deadline: float | timedelta | None = None,
        priority: int = 0,
    ) -> RunHandle:
        """Give the agent a run. It is written down before this returns, and from then on survives everything.

        Args:
            payload: What to do; given to the agent's `run`. Storable as JSON.
            run_id: Name of the run; made up if not given.
            key: Idempotency key: the same key with the same payload is the same run.
            deadline: Seconds from now after which the run fails if it has not ended.
            priority: Higher goes first.

        Raises:
            IdempotencyConflict: The key or the name was used with another payload.
            ValueNotStorable: The payload cannot be written as JSON.
        """
        services = self._services
        run = services.journal.submit(self.name, payload, run_id=run_id, key=key, deadline=deadline, priority=priority)
        services.poke(self.name)
        return RunHandle(services.journal, run.id)

    def resume(self) -> bool:
        """Let it take runs again after `drain`, and say whether it had been told not to."""
        was: bool = self._ask(TakeWork())
        return was

    @property
    def aio(self) -> "AsyncAgentHandle":
        """The same for asyncio: nothing blocks the loop, and no thread waits for an engine."""
        return AsyncAgentHandle(self)


class AsyncNamed(AsyncRequests):
    """An agent or a pool by its name, for asyncio."""

    def __init__(self, handle: Named) -> None:
        self._handle = self._begins = handle

    def _at_once(self, options: RunOptions) -> bool:
        return not self._handle.looks_at_files(options)

    async def analyze(self, filepath: str | os.PathLike[str], *, timeout: float | None = 30.0) -> AnalyzeResult:
        """Look at a script without running it."""
        return await asyncio.to_thread(self._handle.analyze, filepath, timeout=timeout)

    async def status(self) -> OwnerStatus:
        """Say what it is doing."""
        return await asyncio.to_thread(self._handle.status)


class AsyncAgentHandle(AsyncNamed):
    """An agent by its name, for asyncio."""

    _handle: AgentHandle

    async def run(self, payload: Any = None, **options: Any) -> RunHandle:
        """Give the agent a run; see `AgentHandle.run`. Await the handle for the result."""
        return await asyncio.to_thread(lambda: self._handle.run(payload, **options))
