"""Talking to an agent by its name: the handle outlives every incarnation of what it names."""

from datetime import timedelta
from functools import cached_property, partial
from typing import Any, Final, Self, TypeVar, Unpack

from mlld_sdk.actors.core.errors import ActorDead, AskTimeout
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.agents.duty import Drain, TakeWork
from mlld_sdk.agents.options import LiveOptions
from mlld_sdk.agents.owner import AskStatus, Configure, OwnerStatus
from mlld_sdk.agents.services import Services
from mlld_sdk.base.durations import seconds
from mlld_sdk.client.aio import AsyncRequests, in_thread
from mlld_sdk.client.requests import HandleRequests
from mlld_sdk.journal.errors import RunKeyNotFound
from mlld_sdk.runs.handles import RunHandle

N = TypeVar("N", bound="Named")

ANSWER_TIMEOUT: Final = 5.0
"""Seconds an agent may take to answer how it is; its mailbox never waits for a script."""


class Named(HandleRequests):
    """What handles to agents, pools and clients have in common.

    Attributes:
        name: Path in the tree.
    """

    def __init__(self, services: Services, name: str) -> None:
        super().__init__(partial(services.requests_of, name))
        self.name = name
        self._services = services

    @property
    def ref(self) -> ActorRef[Any] | None:
        """The incarnation that lives now, if one does."""
        return self._services.whereis(self.name)

    @cached_property
    def aio(self) -> "AsyncNamed[Self]":
        """The same for asyncio: nothing blocks the loop, and no thread waits."""
        return AsyncNamed(self)

    def status(self) -> OwnerStatus:
        """Return what it is doing; answered while scripts run."""
        status: OwnerStatus = self._ask(AskStatus())
        return status

    def wait_until_up(self, timeout: float | timedelta = 30.0) -> bool:
        """Wait until an incarnation works under this name, and return whether that was so in time.

        An engine that was killed before the call fails no request that is made after it, also if nothing here had
        noticed that death: the kernel is asked. After a request that failed with its engine this waits for the next
        incarnation, never for the one that is about to end. It is woken; nothing is polled.

        Raises:
            RuntimeGaveUp: The root gave up, now or meanwhile: none will come.
        """
        return self._services.wait_until_up(self.name, seconds(timeout))

    def configure(self, **changes: Unpack[LiveOptions]) -> None:
        """Change options while it works, without dropping engines or requests.

        They last through crashes and restarts of it and its siblings, until it is stopped or restarted on purpose (then
        it is as declared), its declaration is changed, or its supervisor is started anew. A rung of its ladder wins.

        Raises:
            ConfigurationError: The option cannot be changed so, or the value is wrong; nothing was changed.
        """
        self._ask(Configure(changes))

    def drain(self, timeout: float | timedelta = 60.0) -> None:
        """Stop it from taking runs and requests, and wait until those it has have ended; new requests are `Draining`.

        Requests that wait for an engine count as taken, and get one. It takes work again after `resume`, or as a new
        incarnation.

        Raises:
            AskTimeout: They have not, in that time; it goes on draining.
        """
        limit = seconds(timeout)
        try:
            self._ask(Drain(), limit)
        except AskTimeout:
            said = f"{self.name} has not ended what it has within {limit:g} s, and goes on draining"
            raise AskTimeout(said, timeout=limit, hint="drain again to go on waiting, or resume it") from None

    def resume(self) -> bool:
        """Make it take work again after `drain`, and return whether it had been told not to."""
        was: bool = self._ask(TakeWork())
        return was

    def _ask(self, message: object, timeout: float = ANSWER_TIMEOUT) -> Any:  # noqa: ANN401
        ref = self.ref
        if ref is None:
            raise self._services.absent(self.name)
        try:
            return ref.call(message, timeout=timeout)
        except ActorDead:
            raise self._services.absent(self.name) from None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class AgentHandle(Named):
    """An agent by its name."""

    def run(
        self,
        payload: object = None,
        *,
        run_id: str | None = None,
        key: str | None = None,
        deadline: float | timedelta | None = None,
        priority: int = 0,
    ) -> RunHandle:
        """Submit a run to the agent. It is in the journal before this returns, and from then on survives everything.

        Args:
            payload: What to do; given to the agent's `run`. Storable as JSON.
            run_id: Name of the run; made up if not given.
            key: Idempotency key: the same key with the same payload is the same run.
            deadline: Seconds from now after which the run fails if it has not ended.
            priority: Higher goes first.

        Raises:
            IdempotencyConflict: The key or the name was used with another payload.
            ValueNotStorable: The payload cannot be written as JSON.
            RuntimeGaveUp: The root gave up; nothing was submitted.
        """
        services = self._services
        services.refuse_if_over()
        run = services.journal.submit(self.name, payload, run_id=run_id, key=key, deadline=deadline, priority=priority)
        services.poke(self.name)
        return RunHandle(services.journal, run.id)

    def find(self, key: str) -> RunHandle:
        """Find the run that was submitted to this agent with an idempotency key, by whichever process.

        Raises:
            RunKeyNotFound: There is none.
        """
        journal = self._services.journal
        run = journal.find(self.name, key)
        if run is None:
            raise RunKeyNotFound(key, self.name)
        return RunHandle(journal, run.id)

    @cached_property
    def aio(self) -> "AsyncAgentHandle":
        """The same for asyncio: nothing blocks the loop, and no thread waits for an engine."""
        return AsyncAgentHandle(self)


class AsyncNamed(AsyncRequests[N]):
    """An agent or a pool by its name, for asyncio."""

    status = in_thread(Named.status)
    wait_until_up = in_thread(Named.wait_until_up)
    configure = in_thread(Named.configure)
    drain = in_thread(Named.drain)
    resume = in_thread(Named.resume)


class AsyncAgentHandle(AsyncNamed[AgentHandle]):
    """An agent by its name, for asyncio. Await the handle that `run` returns for the result."""

    run = in_thread(AgentHandle.run)
    find = in_thread(AgentHandle.find)
