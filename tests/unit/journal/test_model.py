"""The journal against a model small enough to be seen right: whatever happens in whatever order, they agree."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlld_sdk.journal import Fresh, Journal, JournalLimits, Replay, RunLease, StepPolicy
from mlld_sdk.journal import errors as e
from mlld_sdk.journal.memory import MemoryStore
from tests.support.journal import Clock, quick

MAX_DEATHS = 3
TTL = 10.0
IDEMPOTENT = StepPolicy(on_interrupt="retry", max_attempts=2)
ONCE = StepPolicy()
POSITIONS = st.sampled_from(["1", "2.1.1", "2.2.1"])
RUNS = st.integers(0, 1)
SIDES = st.integers(0, 1)


@dataclass
class Step:
    state: str = "started"
    attempts: int = 1
    forgiven: int = 0
    deaths: int = 0
    value: Any = None


@dataclass
class Run:
    id: str
    state: str = "pending"
    owner: RunLease | None = None
    until: float = 0.0
    steps: dict[str, Step] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    deaths: int = 0
    progress: int = 0
    stale: list[RunLease] = field(default_factory=list)
    result: Any = None

    @property
    def finished(self) -> int:
        return sum(step.state == "finished" for step in self.steps.values())

    def drop_owner(self, state: str) -> None:
        if self.owner is not None:
            self.stale.append(self.owner)
        self.owner, self.state, self.used = None, state, set()

    def interrupt(self, died: bool) -> list[Step]:
        flying = [step for step in self.steps.values() if step.state == "started"]
        for step in flying:
            step.state = "interrupted"
            step.deaths += died
            step.forgiven += not died
        return flying

    def die(self) -> bool:
        if self.finished > self.progress:
            self.deaths = 0
        self.progress = self.finished
        self.deaths += 1
        flying = self.interrupt(died=True)
        poison = self.deaths >= MAX_DEATHS or any(step.deaths >= MAX_DEATHS for step in flying)
        self.drop_owner("parked" if poison else "pending")
        return poison


class JournalAgainstModel(RuleBasedStateMachine):
    """Two journals on one store, as two processes would be."""

    def store(self) -> list[Journal]:
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.clock = Clock()
        self.options: dict[str, Any] = {"env": self.clock.env, "limits": JournalLimits(max_deaths=MAX_DEATHS)}
        self.journals = self.store()
        self.runs = [Run(self.journals[0].submit("kind", n, key=f"key-{n}").id) for n in range(2)]
        self.counter = 0

    def teardown(self) -> None:
        if hasattr(self, "journals"):
            assert self.journals[0].verify() == []
        for journal in getattr(self, "journals", []):
            journal.close()

    @rule(n=RUNS, side=SIDES)
    def submit_again(self, n: int, side: int) -> None:
        again = self.journals[side].submit("kind", n, key=f"key-{n}")
        assert (again.id, again.state) == (self.runs[n].id, self.runs[n].state)
        with pytest.raises(e.IdempotencyConflict):
            self.journals[side].submit("kind", "other", key=f"key-{n}")

    @rule(n=RUNS, side=SIDES)
    def claim(self, n: int, side: int) -> None:
        run = self.runs[n]
        expected: type[Exception] | None = None
        if run.state == "parked":
            expected = e.RunParked
        elif run.state in ("finished", "failed", "cancelled"):
            expected = e.RunEnded
        elif run.owner is not None and self.clock.at < run.until:
            expected = e.LeaseHeld
        elif run.owner is not None:
            expected = e.RunParked if run.die() else None
        if expected is not None:
            with pytest.raises(expected):
                self.journals[side].claim(run.id, "owner", ttl=TTL, auto_renew=False)
            return
        run.owner = self.journals[side].claim(run.id, "owner", ttl=TTL, auto_renew=False)
        run.state, run.until = "running", self.clock.at + TTL

    @precondition(lambda self: any(run.owner for run in self.runs))
    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: any(run.owner for run in self.runs))
    @rule(data=st.data(), position=POSITIONS, policy=st.sampled_from([IDEMPOTENT, ONCE]), act=st.sampled_from("xfn"))
    def work(self, data: st.DataObject, position: str, policy: StepPolicy, act: str) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if run.owner]))
        lease = run.owner
        assert lease is not None
        known = run.steps.get(position)
        retryable = known is not None and known.state in ("interrupted", "retryable")

        def begin() -> Any:
            return lease.begin_step(position, "name", f"asks {position}", policy)

        if position in run.used and known is not None and known.state != "retryable":
            with pytest.raises(e.StepNotOpen):
                begin()
            return
        if known is not None and known.state == "interrupted" and policy is ONCE:
            with pytest.raises(e.StepInterrupted):
                begin()
            return
        if known is not None and retryable and known.attempts - known.forgiven >= policy.max_attempts:
            with pytest.raises(e.StepExhausted):
                begin()
            return
        with pytest.raises(e.StepMismatch) if known is not None else pytest.raises(e.ConfigurationError):
            lease.begin_step(position if known else "no position", "another name", "x")
        begun = begin()
        run.used.add(position)
        if known is not None and known.state == "finished":
            assert begun == Replay(recorded=known.value)
            return
        attempts = known.attempts + 1 if known is not None else 1
        assert isinstance(begun, Fresh)
        assert begun.attempt == attempts
        self.counter += 1
        step = run.steps[position] = Step(attempts=attempts)
        if known is not None:
            step.deaths, step.forgiven = known.deaths, known.forgiven
        if act == "f":
            step.value = lease.finish_step(position, {"n": self.counter})
            step.state = "finished"
        elif act == "x":
            lease.fail_step(position, ValueError("flaky"), final=False)
            step.state = "retryable"

    @precondition(lambda self: any(run.owner for run in self.runs))
    @rule(data=st.data(), how=st.sampled_from(["finish", "fail", "park", "release", "renew", "cancel"]))
    def end(self, data: st.DataObject, how: str) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if run.owner]))
        lease = run.owner
        assert lease is not None
        if how == "finish":
            run.result = lease.finish_run(run.finished).value
            run.drop_owner("finished")
        elif how == "fail":
            lease.fail_run(ValueError("failed"))
            run.drop_owner("failed")
        elif how == "park":
            lease.park_run("parked")
            run.interrupt(died=False)
            run.drop_owner("parked")
        elif how == "release":
            lease.release()
            run.interrupt(died=False)
            run.drop_owner("pending")
        elif how == "cancel":
            self.journals[0].cancel(run.id)
            run.interrupt(died=False)
            run.drop_owner("cancelled")
        else:
            lease.renew()
            run.until = self.clock.at + TTL

    @precondition(lambda self: any(run.owner for run in self.runs))
    @rule(data=st.data(), side=SIDES)
    def die_and_go_on(self, data: st.DataObject, side: int) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if run.owner]))
        assert run.owner is not None
        assert run.owner.abandon("died").state == ("parked" if run.die() else "pending")
        self.claim(self.runs.index(run), side)

    @rule(n=RUNS, rerun=st.booleans())
    def retry(self, n: int, rerun: bool) -> None:
        run = self.runs[n]
        if run.state not in ("parked", "failed", "cancelled"):
            with pytest.raises(e.RunNotParked):
                self.journals[1].retry(run.id, rerun_interrupted=rerun)
            return
        self.journals[1].retry(run.id, rerun_interrupted=rerun)
        run.state, run.deaths = "pending", 0
        for step in run.steps.values():
            if step.state != "finished":
                step.attempts = step.deaths = 0
                was_open = step.state == "started"
                step.state = "retryable" if rerun or step.state == "retryable" else "interrupted"
                assert not was_open or run.owner is None

    @precondition(lambda self: any(run.stale for run in self.runs))
    @rule(data=st.data())
    def a_stale_owner_speaks(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if run.stale]))
        lease = data.draw(st.sampled_from(run.stale))
        for word in (
            lease.release,
            lambda: lease.fail_run(ValueError("late")),
            lambda: lease.note("late"),
            lease.renew,
        ):
            with pytest.raises(e.LeaseLost):
                word()

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "runs"):
            return
        for run in self.runs:
            found = self.journals[0].run(run.id)
            assert found.state == run.state
            assert (found.owner is not None) == (run.owner is not None)
            assert len(found.deaths) == run.deaths
            stored = {step.position: step for step in self.journals[1].steps(run.id)}
            assert set(stored) == set(run.steps)
            for position, step in run.steps.items():
                assert stored[position].attempts == step.attempts
                assert stored[position].state == ("failed" if step.state == "retryable" else step.state)
            outcome = self.journals[1].outcome(run.id)
            assert (outcome.state if outcome else None) == (
                run.state if run.state not in ("pending", "running") else None
            )
            if run.state == "finished":
                assert outcome is not None
                assert outcome.value == run.result


class InMemory(JournalAgainstModel):
    def store(self) -> list[Journal]:
        memory = MemoryStore()
        return [Journal(memory, **self.options) for _ in range(2)]


class OnDisk(JournalAgainstModel):
    def store(self) -> list[Journal]:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "journal.db"
        return [quick(path, **self.options) for _ in range(2)]

    @rule()
    def reopen(self) -> None:
        """Close one journal in good order: what it owned is given back."""
        journal = self.journals[1]
        for run in self.runs:
            if run.owner is not None and run.owner in journal._core.leases():
                run.interrupt(died=False)
                run.drop_owner("pending")
        for run in self.runs:
            run.stale = [lease for lease in run.stale if lease._core is not journal._core]
        journal.close()
        self.journals[1] = quick(Path(self.folder.name) / "journal.db", **self.options)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestInMemory = InMemory.TestCase
TestInMemory.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestOnDisk = OnDisk.TestCase
TestOnDisk.settings = settings(
    max_examples=10, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
