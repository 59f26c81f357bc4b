"""A job: what the code of a run holds in its hands. Each call through it is a durable step.

A step is written down before it acts and its result before it is handed on. When the run is resumed the code runs again
from the top, and every finished step answers from the journal instead of acting. So code between steps should decide
from what steps gave it, and everything that costs or changes something belongs into a step.
"""

import contextlib
import contextvars
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar, Unpack, cast

import msgspec

from mlld_sdk.actors.core.errors import ActorKilled
from mlld_sdk.base.durations import seconds as as_seconds
from mlld_sdk.base.errors import InfrastructureError, InvalidOption
from mlld_sdk.base.options import check_callable, check_class, number, text, truth, whole
from mlld_sdk.base.texts import fit
from mlld_sdk.engines.cache_use import CacheUse
from mlld_sdk.engines.requests import Asked, EngineRequests
from mlld_sdk.journal import Failed, Fingerprint, Fresh, Positions, Replay, RunLease, StepPolicy
from mlld_sdk.journal.errors import JournalRefusal, StepExhausted, StepInterrupted, StepMismatch
from mlld_sdk.runs.acceptance import Acceptance, accepting
from mlld_sdk.runs.breakers import StepBreaker, StepBreakers, StepGuard, StepWait
from mlld_sdk.runs.errors import JobCancelled, StepFailed, StepIsAsync, StepsOverlap
from mlld_sdk.runs.events import RunProgressed, StepHeld
from mlld_sdk.runs.failures import Owner, what_ends
from mlld_sdk.runs.functions import called, is_async
from mlld_sdk.runs.retry import Retry
from mlld_sdk.runs.state import JobState, RunServices
from mlld_sdk.scripts import results
from mlld_sdk.scripts.answers import warn_of_cut, warn_of_unanswered
from mlld_sdk.scripts.params import RunOptions
from mlld_sdk.scripts.types import ExecuteResult, Unanswered
from mlld_sdk.supervision.breaker import Breaker, Permit
from mlld_sdk.supervision.errors import BreakerOpen

T = TypeVar("T")
S = TypeVar("S")
P = ParamSpec("P")

SHORTEST_WAIT: Final = 0.05
"""Seconds after which a breaker that lets one probe after the other through is asked again at the earliest."""

WORTH_NOTING: Final = 1.0
"""Seconds of waiting from which on it is written down that the run waits."""

ONCE: Final = StepPolicy(on_interrupt="fail")
"""A step whose repetition was not declared harmless: interrupted, it parks the run."""


NEEDS_A_LOOK: Final = (StepInterrupted, StepExhausted, StepMismatch)
"""Failures of a run that no code can answer: it is parked until an operator has looked at it."""


class Job:
    """One run in progress. Threads may share it only through `parallel` and `map`, which give each branch its own.

    Attributes:
        run_id: Name of the run, for logs and for idempotency keys of your own.
        attempt: How often the run has been taken up, 1 the first time.
    """

    def __init__(
        self,
        lease: RunLease,
        requests: EngineRequests,
        *,
        services: RunServices,
        owner: Owner,
        breakers: StepBreakers,
        protected: bool,
        attempts: int,
    ) -> None:
        """Jobs are made by the agent that works on a run.

        Args:
            lease: Ownership of the run.
            requests: The way to the agent's engines.
            services: What the runtime shares.
            owner: The agent.
            breakers: The circuit breakers of the agent's steps.
            protected: Whether a step on an engine may be repeated unless it says otherwise.
            attempts: How often a step that may be repeated is begun in all.
        """
        self.run_id: str = lease.run_id
        self.attempt: int = lease.attempt
        self._lease = lease
        self._requests = requests
        self._services = services
        self._breakers = breakers
        self._protected = protected
        self._attempts = attempts
        self._again = StepPolicy(on_interrupt="retry", max_attempts=attempts)
        self._fingerprint = services.journal.values.fingerprint
        self._positions = Positions()
        self._turn = threading.Lock()
        self.shared: JobState = JobState(requests.source, services.env, owner)

    # -- steps --------------------------------------------------------------------------------------------------------

    def execute(
        self,
        filepath: str | os.PathLike[str],
        payload: object = None,
        *,
        idempotent: bool | None = None,
        retry: Retry | None = None,
        accept: Callable[[str], object] | None = None,
        breaker: StepBreaker = None,
        **options: Unpack[RunOptions],
    ) -> ExecuteResult:
        """Run a script file as a step.

        Args:
            filepath: The script, relative to the agent's working directory.
            payload: Seen by the script as `@payload`.
            idempotent: Whether the step may run again if it is interrupted. By default it may if the agent keeps
                checkpoints, because then finished model calls are not made again.
            retry: Whether and when it is tried again if it fails.
            accept: Takes the output, without white space around it, and says whether it counts: `accept=bool` for any
                that is not empty. What it does not take is a failed attempt (`STEP_NOT_ACCEPTED`), and the answers of
                models that led to it are forgotten, so that the next attempt asks again.
            breaker: The circuit breaker of what it calls, `circuit_breaker("model")`: the same name is the same breaker
                in the whole tree. By default the one the agent was declared with; `False`: none.
            **options: As for `Client.execute`.

        Raises:
            StepFailed: The script failed, did not finish in time (`TIMEOUT`), or gave what `accept` does not take.
        """
        request = self._requests.file(filepath, payload, options)  # refuses what is wrong before anything is written
        name = os.fspath(filepath)
        asked = self._fingerprint(*_asked("execute", name, payload, options))
        repeatable = self._protected if idempotent is None else idempotent
        stored = self._on_engine(name, asked, repeatable, request, retry, accept, breaker)
        result = results.execute_result(stored)
        result.truncations = stored.get("truncations", [])
        result.truncated = bool(result.truncations)
        return result

    def process(
        self,
        script: str,
        *,
        file_path: str | os.PathLike[str] | None = None,
        payload: object = None,
        idempotent: bool | None = None,
        retry: Retry | None = None,
        accept: Callable[[str], object] | None = None,
        breaker: StepBreaker = None,
        **options: Unpack[RunOptions],
    ) -> str:
        """Run script text as a step, and return its output. Arguments and errors as for `execute`."""
        request = self._requests.text(script, file_path, payload, options)
        name = "process" if file_path is None else os.fspath(file_path)
        asked = self._fingerprint(*_asked("process", script, [file_path and os.fspath(file_path), payload], options))
        # Text without a file has no cache, so nothing protects its model calls from being made twice.
        repeatable = (self._protected and file_path is not None) if idempotent is None else idempotent
        stored = self._on_engine(name, asked, repeatable, request, retry, accept, breaker)
        if "output" in stored.get("truncations", ()):
            warn_of_cut()
        if "unanswered" in stored:
            warn_of_unanswered(results.read_all(Unanswered, stored["unanswered"]))
        return str(stored["output"])

    def step(
        self,
        name: str,
        function: Callable[..., T],
        *args: Any,
        idempotent: bool = False,
        retry: Retry | None = None,
        accept: Callable[[T], object] | None = None,
        breaker: StepBreaker = None,
    ) -> T:
        """Call a function as a step. What it returns must be storable as JSON, and comes back the same on replay.

        Args:
            name: What the step is called; with the arguments it must be the same on every replay.
            function: Called with `args`, on this thread.
            *args: Storable as JSON too.
            idempotent: Whether it may run again if it is interrupted.
            retry: Whether and when it is tried again if it raises; only for functions that may be called again then.
            accept: Takes what the function returned and says whether it counts. What it does not take is a failed
                attempt (`STEP_NOT_ACCEPTED`), and if it raises, the step fails with that.
            breaker: The circuit breaker of what it calls, as for `execute`.

        Raises:
            StepFailed: The function raised, as often as `retry` allows: also an error of an actor, an engine or another
                agent that it has called. Only failures of the journal and of the agent itself are no answers.
            StepIsAsync: It is a coroutine function, which only `async def run` can take; it was not called.
        """
        check_callable("function", function)
        if is_async(function):
            raise StepIsAsync(name)
        return cast(
            "T", self.call_step(name, partial(called, name, function), args, idempotent, retry, accept, breaker)
        )

    def sleep(self, seconds: float | timedelta) -> None:
        """Wait so many seconds from the first time this is called in the run, restarts and replays included.

        The waiting is a step: when the run is resumed, only what is left of the time is waited for, if anything is. It
        ends at once when the run is cancelled, its deadline passes or the agent stops. The agent counts as making
        progress, and its other runs go on; a run that sleeps takes one place of the agent's `concurrency`.
        """
        self._sleep(*self.asleep_for(seconds))

    def sleep_until(self, moment: float | datetime) -> None:
        """Wait as `sleep` does until a moment: seconds since the epoch, or a datetime (without zone: local time).

        The moment of the first time this is called counts, should the code come to another one when it is resumed.
        """
        self._sleep(*self.asleep_until(moment))

    def parallel(self, *branches: Callable[["Job"], Any]) -> list[Any]:
        """Run branches side by side, each with a job of its own for its steps, and return what they gave, in order.

        All branches are let finish. Then the first error, in the order of the branches, is raised.
        """
        return self.map(lambda branch, job: branch(job), branches, concurrency=max(1, len(branches)))

    def map(self, function: Callable[[S, "Job"], T], items: Iterable[S], *, concurrency: int = 4) -> list[T]:
        """Call `function(item, job)` for every item, some at a time, and return the results in order.

        Args:
            function: Takes an item and the job of its branch.
            items: What to work on; the same on every replay.
            concurrency: How many at a time. Steps on engines also wait for one of the agent's engines.
        """
        check_callable("function", function)
        work = list(items)
        with (
            self.branches(len(work), concurrency) as jobs,
            ThreadPoolExecutor(max(1, min(concurrency, len(work))), thread_name_prefix=self.run_id) as threads,
        ):
            calls = [
                threads.submit(contextvars.copy_context().run, function, item, job)
                for item, job in zip(work, jobs, strict=True)
            ]
            pending = wait(calls, return_when=FIRST_EXCEPTION).not_done
            if self.shared.sealed is not None:  # no branch begins once the job is sealed
                for call in pending:
                    call.cancel()
        self.check()
        return [call.result() for call in calls]

    # -- the run ------------------------------------------------------------------------------------------------------

    def progress(self, message: str, fraction: float | None = None) -> None:
        """Report how far the run is, for operators, and as proof that it is not stuck."""
        given: object = message
        said = text("message", fit(given) if isinstance(given, str) else given, empty=True)
        if fraction is not None:
            number("fraction", fraction, 0, 1)
        self._progressed()
        at = self._services.env.wall()
        self._services.sink(
            RunProgressed(at=at, run_id=self.run_id, agent=self._requests.name, message=said, fraction=fraction)
        )

    def note(self, name: str, data: object = None) -> None:
        """Write a receipt into the run's own record."""
        text("name", name)
        self.check()
        self._lease.note(name, data)

    @property
    def cancelled(self) -> bool:
        """Whether the run takes no more steps, for loops that want to end early."""
        return self.shared.sealed is not None

    def check(self) -> None:
        """Raise what ended this job, if anything did."""
        if self.shared.sealed is not None:
            raise self.shared.sealed.with_traceback(None)  # it may be raised many times, and would keep every frame

    # -- for the agent ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def branches(self, number: int, concurrency: int) -> Iterator[list["Job"]]:
        """Make jobs for branches; inside the block this job itself takes no steps."""
        whole("concurrency", concurrency, least=1)
        with self._alone("branches"):
            yield [self._branch(positions) for positions in self._positions.branches(number)] if number else []

    def call_step(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        idempotent: bool,
        retry: Retry | None,
        accept: Callable[[Any], object] | None,
        breaker: StepBreaker,
    ) -> Any:
        """Call a function as a step; what it returns is its result."""
        text("name", name)
        accepting(accept)
        asked = self._fingerprint("step", name, args)
        condition = None if accept is None else Acceptance(accept)
        return self._step(name, asked, idempotent, lambda: function(*args), retry, breaker, accept=condition)

    @property
    def last_progress(self) -> float:
        """Monotonic seconds at which a step last ended or progress was last said."""
        return self._services.env.now() if self.shared.sleeping else self.shared.progressed

    def asleep_for(self, seconds: float | timedelta) -> tuple[float, float]:
        """Write down the moment until which to sleep; returns it, and how long that may take at most."""
        length = as_seconds(seconds, "seconds", infinite=False)
        wall = self._services.env.wall
        asked = self._fingerprint("sleep", "sleep", [length])
        return self._noted(float(self._step("sleep", asked, True, lambda: wall() + length, breaker=False))), length

    def asleep_until(self, moment: float | datetime) -> tuple[float, float]:
        """Write down the moment until which to sleep; returns it, and how long that may take at most."""
        until: object = moment.timestamp() if isinstance(moment, datetime) else moment
        if isinstance(until, bool) or not isinstance(until, int | float) or not math.isfinite(until):
            raise InvalidOption("moment", moment, "seconds since the epoch, or a datetime")
        asked = self._fingerprint("sleep", "sleep_until", [])
        return self._noted(float(self._step("sleep_until", asked, True, lambda: float(until), breaker=False))), math.inf

    # -- inside -------------------------------------------------------------------------------------------------------

    def _noted(self, until: float) -> float:
        """Write down that the run waits until a moment, if that is far enough for its owner to die before."""
        if until > self._services.env.wall() + WORTH_NOTING:
            self._sealing(self._lease.sleep_until, until)
        return until

    def _sleep(self, until: float, most: float) -> None:
        with self._alone("sleep"):
            self._sleep_through(until, most)

    def _sleep_through(self, until: float, most: float) -> None:
        self.shared.sleep(until, most)
        self._check_awake()
        self._progressed()

    def _check_awake(self) -> None:
        self.check()
        if self.shared.awake.is_set():
            raise JobCancelled("the code of the run has ended")

    def _branch(self, positions: Positions) -> "Job":
        job = Job(
            self._lease,
            self._requests,
            services=self._services,
            owner=self.shared.owner,
            breakers=self._breakers,
            protected=self._protected,
            attempts=self._attempts,
        )
        job._positions, job.shared = positions, self.shared
        return job

    def _progressed(self) -> None:
        self.shared.progressed = self._services.env.now()

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        self._take_turn(name)
        try:
            yield
        finally:
            self._turn.release()

    def _take_turn(self, name: str) -> None:
        if not self._turn.acquire(blocking=False):
            raise StepsOverlap(f"{name} was begun while another step of the same job was under way")

    def _step(
        self,
        name: str,
        asked: Fingerprint,
        repeatable: bool,
        act: Callable[[], Any],
        retry: Retry | None = None,
        breaker: StepBreaker = None,
        *,
        on_engine: bool = False,
        accept: Acceptance | None = None,
    ) -> Any:
        guard = self._breakers.own if breaker is None else self._breakers.of(breaker)
        once = self._step_once if guard is None else self._guarded
        truth("idempotent", repeatable)
        if retry is not None:
            check_class("retry", retry, Retry)
        self._take_turn(name)
        try:
            self.check()
            step = _Step(name, self._positions.next(), asked, retry, on_engine, accept, guard)
            if retry is None:
                return once(step, self._again if repeatable else ONCE, act)
            most = max(retry.attempts, self._attempts) if repeatable else retry.attempts
            policy = StepPolicy(on_interrupt="retry" if repeatable else "fail", max_attempts=most)
            while True:
                self._wait_for_turn(step.position, retry)
                with contextlib.suppress(RetryStep):
                    return once(step, policy, act)
        finally:
            self._turn.release()

    def _on_engine(
        self,
        name: str,
        asked: Fingerprint,
        repeatable: bool,
        request: Asked,
        retry: Retry | None,
        accept: Callable[[str], object] | None,
        breaker: StepBreaker,
    ) -> dict[str, Any]:
        """Make a request as a step, and return its result as it is stored."""
        accepting(accept)
        used, condition = None, None
        if accept is not None:
            used = CacheUse()
            forget = partial(self._requests.forget, request[1], used)
            condition = Acceptance(accept, of=lambda stored: stored["output"].strip(), forget=forget)
        stored: dict[str, Any] = self._step(
            name,
            asked,
            repeatable,
            lambda: _storable(self._requests.result(*request, used)),
            retry,
            breaker,
            on_engine=True,
            accept=condition,
        )
        return stored

    def _wait_for_turn(self, position: str, retry: Retry) -> None:
        """Wait until a step that has failed before, here or with an earlier owner, is to be tried again."""
        failed = self._sealing(self._lease.to_retry, position)
        if failed is not None and failed.attempts and failed.ended is not None:
            pause = retry.pause(failed.attempts, f"{self.run_id}/{position}")
            self._sleep_through(self._noted(failed.ended + pause), pause)

    def _guarded(self, step: "_Step", policy: StepPolicy, act: Callable[[], Any]) -> Any:
        """Do what `_step_once` does when the breaker of the step lets it through."""
        assert step.guard is not None
        try:
            step.permit = permit = self._permit(step, step.guard)
        except BreakerOpen as refused:
            return self._step_once(step, policy, partial(_refuse, refused))
        if permit is None:
            return self._step_once(step, policy, act)
        with self.shared.holding(permit), step.guard.breaker.inside():
            self.check()
            return self._step_once(step, policy, act)

    def _permit(self, step: "_Step", guard: StepGuard) -> Permit | None:
        """Ask the breaker of a step to let it through, and wait until it does; `None` if the step will not act.

        Raises:
            BreakerOpen: It was declared to fail while its breaker is open.
        """
        if self.attempt > 1 and self._sealing(self._lease.is_answered, step.position):
            return None
        try:
            return guard.breaker.acquire(for_step=True)
        except BreakerOpen as refused:
            if guard.fails:
                raise
            return self._wait_for_breaker(step, guard.breaker, refused.retry_after)

    def _wait_for_breaker(self, step: "_Step", breaker: Breaker, retry_after: float) -> Permit:
        """Wait until a breaker lets a step through; it takes part in no attempt meanwhile, and holds no engine."""
        env, turn = self._services.env, threading.Event()
        wait = StepWait(run_id=self.run_id, step=step.name, breaker=breaker.name, retry_after=retry_after)
        told = StepHeld(at=env.wall(), agent=self._requests.name, **msgspec.structs.asdict(wait))
        with self._breakers.waiting(wait), breaker.telling(turn.set), self.shared.telling(turn.set):
            self._services.sink(told)
            while True:
                turn.clear()
                self._check_awake()
                asked = env.wall()  # before: the clock of a test may be moved at any moment
                try:
                    return breaker.acquire(for_step=True)
                except BreakerOpen as refused:
                    left = max(refused.retry_after, SHORTEST_WAIT)
                until = self._noted(asked + left)
                with contextlib.closing(self.shared.naps(until, left, turn.set)) as naps:
                    for seconds in naps:
                        if turn.wait(seconds):
                            break

    def _step_once(self, step: "_Step", policy: StepPolicy, act: Callable[[], Any]) -> Any:
        decision = self._sealing(self._lease.begin_step, step.position, step.name, step.asked, policy)
        match decision:
            case Replay(value=value):
                self._progressed()
                return value
            case Failed(error=error):
                raise StepFailed(step.name, error)
            case Fresh(attempt=attempt):
                step.attempt = attempt
                return self._act(step, act)

    def _act(self, step: "_Step", act: Callable[[], Any]) -> Any:
        own = step.on_engine
        try:
            value = act()
            if step.accept is not None:
                own = False  # what is raised from here on says nothing about the engine
                step.accept.judge(step.name, value)
        except JobCancelled as cancelled:
            self.shared.seal(cancelled)
            raise
        except ActorKilled:
            raise
        except BaseException as error:  # noqa: BLE001 - what the step raised is its answer, an exit too
            ends = what_ends(error, self.shared.owner, on_own_engine=own)
            if ends is None:
                if step.guard is not None and step.permit is not None:
                    step.guard.tell(step.permit, error)
                return self._answer_failure(step, error)
            self.shared.seal(ends)
            raise ends from (None if ends is error else error)
        if step.permit is not None:
            step.permit.settle()
        self.check()
        try:
            done = self._sealing(self._lease.finish_step, step.position, value)
        except JournalRefusal as refused:  # the value cannot be stored: the step acted, and this is what came of it
            return self._answer_failure(step, refused)
        self._progressed()
        return done

    def _answer_failure(self, step: "_Step", error: BaseException) -> Any:
        self.check()
        again = step.retry is not None and step.retry.wants(step.attempt, error)
        record = self._sealing(self._lease.fail_step, step.position, error, final=not again)
        if again:
            self._progressed()
            raise RetryStep
        raise StepFailed(step.name, record) from error

    def _sealing(self, write: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Do something to the journal; if the journal itself fails, the job is over."""
        try:
            return write(*args, **options)
        except InfrastructureError as error:
            self.shared.seal(error)
            raise
        except NEEDS_A_LOOK as error:  # branches beside this one are let finish
            self.shared.unanswered = error
            raise


@dataclass(slots=True)
class _Step:
    """A step as it is begun."""

    name: str
    position: str
    asked: Fingerprint
    retry: Retry | None
    on_engine: bool
    accept: Acceptance | None
    guard: StepGuard | None
    permit: Permit | None = None
    attempt: int = 1


def _refuse(refused: BreakerOpen) -> None:
    """Fail a step whose breaker is open."""
    raise refused


class RetryStep(Exception):
    """An attempt of a step has failed and is to be repeated; the journal knows."""


NO_PART: Final = frozenset({"timeout", "strict", "on_command_failure"})
"""Options that are no part of what a step asks for: they say when it fails."""


def _asked(method: str, what: str, more: object, options: RunOptions) -> list[Any]:
    """List what an engine step asks for: everything that may change the answer, and no deadline."""
    relevant = {name: value for name, value in sorted(options.items()) if name not in NO_PART} if options else {}
    return [method, what, more, relevant]


def _storable(result: ExecuteResult) -> dict[str, Any]:
    """Keep of a result what its reader can use, in the engine's own spelling, so that reading it back is one way."""
    return {
        "output": result.output,
        "exports": result.exports,
        "stateWrites": [
            {"path": write.path, "value": write.value, "timestamp": write.timestamp, "index": write.index}
            for write in result.state_writes
        ],
        "denials": list(map(asdict, result.denials)),
        "truncations": result.truncations,
        "effects": [{"type": one.type, "content": one.content, "path": one.path} for one in result.effects],
        **({"unanswered": list(map(asdict, result.unanswered))} if result.unanswered else {}),
    }
