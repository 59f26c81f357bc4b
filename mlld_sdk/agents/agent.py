"""Agents: actors that own engines and work on durable runs."""

import inspect
from collections.abc import Mapping
from types import FunctionType
from typing import Any, ClassVar

import msgspec

from mlld_sdk.actors.core.exits import Reason
from mlld_sdk.agents.duty import TakeWork
from mlld_sdk.agents.options import AgentOptions
from mlld_sdk.agents.owner import Configure, EngineOwner, OwnerStatus
from mlld_sdk.agents.services import LOOK
from mlld_sdk.agents.workload import Workload
from mlld_sdk.base.errors import ConfigurationError, InvalidOption
from mlld_sdk.base.options import check_callable
from mlld_sdk.runs.job import Job


class Agent(EngineOwner):
    """An actor that runs mlld scripts on engines of its own.

    Subclass it and define `run`, or declare it as data: `child(Agent, name="digest", script="digest.mld")`. Options are
    those of `AgentOptions`, given to `child(...)` or set as class attributes.

    `run` is called on a thread of its own with a job and what was submitted. It is called again from the top when the
    run is resumed, so keep what must last in steps and not in `self`.

    Failures of a script are answers to its caller. When an engine fails, the agent crashes and its supervisor
    decides; the run goes on with the next incarnation.
    """

    trap_exit = True
    ends_with_its_engine = True
    Options: ClassVar[type[AgentOptions]] = AgentOptions
    options: AgentOptions

    run: Any = None
    """Define `def run(self, job, payload)` or `async def run(self, job, payload)`; what it returns is the result."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.workload: Workload = Workload(self, self.options, self.run if self.run is not None else self._run_script)

    @classmethod
    def check_child_arguments(cls, kwargs: Mapping[str, Any]) -> None:
        """Refuse wrong options, and a `run` that cannot be called with a job and a payload."""
        super().check_child_arguments(kwargs)
        code = inspect.getattr_static(cls, "run")
        if isinstance(code, FunctionType):
            signature = inspect.signature(code)
            try:
                signature.bind(None, None, None)
            except TypeError:
                raise InvalidOption("run", f"run{signature}", "a method run(self, job, payload)") from None
        elif code is not None and not hasattr(code, "__get__"):
            check_callable("run", code)

    def on_start(self) -> None:
        """Take over the pool of this name, and look for runs that were left behind."""
        super().on_start()
        self.workload.options = self.options  # with what a predecessor was given while it ran
        if self.workload.is_left():
            self.actor_ref.cast(LOOK)

    def on_receive(self, message: Any) -> Any:
        """Take up work without blocking this mailbox."""
        answer = self.workload.receive(message)
        if answer is not NotImplemented:
            return answer
        answer = super().on_receive(message)
        if isinstance(message, Configure | TakeWork):  # there may be room for more runs now
            self.workload.options = self.options
            self.workload.look()
        return answer

    def on_terminate(self, reason: Reason) -> None:
        """Hand the runs back, however this incarnation ends."""
        self.workload.hand_back()
        super().on_terminate(reason)

    def stuck_for(self) -> float:
        """Return for how long a run has got nothing done, in seconds; supervision asks, from a thread of its own."""
        now = self.services.env.now()
        return max((now - work.job.last_progress for work in list(self.workload.working.values())), default=0.0)

    def is_at_work(self) -> bool:
        """Return whether a run or a request it has taken has not ended; called from other threads."""
        return bool(self.workload.working) or super().is_at_work()

    def step_breakers(self) -> dict[str, int]:
        """Return the breakers its steps name, and how many steps wait for each; called from other threads."""
        known = self.services.step_breakers.get(self.name)
        return {} if known is None else known.by_name()

    def status(self) -> OwnerStatus:
        """Return what is going on."""
        status, runs = super().status(), tuple(work.lease.run_id for work in self.workload.working.values())
        breakers = self.services.step_breakers.get(self.name)
        waiting = () if breakers is None else breakers.waits()
        state = "working" if runs and status.state == "idle" else status.state
        return msgspec.structs.replace(status, state=state, runs=runs, waiting=waiting)

    def _run_script(self, job: Job, payload: object) -> str:
        if self.options.script is None:
            raise ConfigurationError(
                f"{type(self).__name__} has nothing to run", hint="define run(self, job, payload), or give script="
            )
        return job.execute(self.options.script, payload).output
