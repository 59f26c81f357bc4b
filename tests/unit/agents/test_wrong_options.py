"""A wrong option is refused where it is written, by name, with the value and what is allowed; nothing is started."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import (
    Agent,
    AsyncClient,
    AsyncJob,
    Backoff,
    Client,
    Job,
    Pool,
    Recycle,
    Retry,
    Runtime,
    budget,
    child,
    circuit_breaker,
    dynamic,
    one_for_one,
    wedge,
)
from mlld_sdk.actors import Actor, ActorSystem, PubSub, Registry, await_many, yield_many
from mlld_sdk.actors.statem import event_timeout, state_timeout
from mlld_sdk.actors.statem import timeout as named_timeout
from mlld_sdk.actors.tasks.task_supervisor import Tasks
from mlld_sdk.base.errors import InvalidOption, UnknownOption
from mlld_sdk.engines import EngineLimits
from mlld_sdk.journal import Journal, JournalLimits, Retention, StepPolicy
from mlld_sdk.runs.errors import RunFailed
from mlld_sdk.supervision.errors import ChildStartFailed
from mlld_sdk.supervision.intensity import RestartLimit
from mlld_sdk.supervision.partition import partitioned
from mlld_sdk.telemetry.bus import Bus


def refused(option: str, act: Callable[[], object]) -> InvalidOption:
    with pytest.raises(InvalidOption) as told:
        act()
    assert told.value.option == option
    assert told.value.allowed
    return told.value


class Worker(Agent):
    engine = "embedded"

    def run(self, job: Job, payload: Any) -> Any:
        return job.process(f"show `{payload}`")


# -- misspelt class attributes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "name", "value", "meant"),
    [
        (Agent, "concurency", 3, "concurrency"),
        (Worker, "concurency", 3, "concurrency"),
        (Agent, "workin_dir", "flows", "working_dir"),
        (Agent, "timout", 3.0, "timeout"),
        (Agent, "hibernate_afer", 3.0, "hibernate_after"),
        (Agent, "step_attempt", 3, "step_attempts"),
        (Agent, "comand", "mlld", "command"),
        (Agent, "child_option", {}, "child_options"),
        (Pool, "sizes", 3, "size"),
        (Pool, "overflows", 3, "overflow"),
        (Pool, "spare", 3, "spares"),
    ],
)
def test_a_misspelt_class_attribute_is_refused_when_the_class_is_defined(
    base: type, name: str, value: object, meant: str
) -> None:
    told = refused(name, lambda: type("Mine", (base,), {name: value}))
    assert isinstance(told, UnknownOption)
    assert told.message == f"there is no option {name!r}"
    assert f"did you mean `{meant}`?" in (told.hint or "")
    assert f"if it is Mine's own, call it `_{name}`" in (told.hint or "")


def test_what_a_class_has_of_its_own_is_its_own() -> None:
    class Mixin:
        timeouts = (1, 2)

    class Mine(Mixin, Agent):
        engine = "embedded"
        topics = ("a", "b")
        model = "small"
        attempts = 4
        names: dict[str, str]
        _timeouts = (1, 2)
        timeouts = (3, 4)  # a base has one, so it is no slip of the pen

        def scripts(self) -> list[str]:
            return []

        @property
        def engine_names(self) -> list[str]:
            return []

        @staticmethod
        def commands() -> None: ...

        class Forks: ...

    class Narrower(Mine):
        timeouts = (5,)
        names = {"a": "b"}  # noqa: RUF012 - as a user writes it

    assert child(Narrower).name == "narrower"


# -- options of `child` -----------------------------------------------------------------------------------------------


class OwnInit(Agent):
    engine = "embedded"

    def __init__(self, mine: int, **options: Any) -> None:
        super().__init__(**options)
        self.mine = mine


class Plain(Actor):
    def __init__(self, host: str = "") -> None:
        super().__init__()
        self.host = host


class Loose(Actor):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options


class Takes(Agent):
    """Has an option of a name that an agent has too, and one that none has."""

    engine = "embedded"

    def __init__(self, timeout: str, **options: Any) -> None:
        self.flavour = options.pop("flavour", "plain")
        super().__init__(timeout=float(timeout), **options)


@pytest.mark.parametrize("kind", [Agent, Worker, OwnInit, Pool])
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("workin_dir", "flows", "did you mean `working_dir`?"),
        ("hibernate_afer", 3, "did you mean `hibernate_after`?"),
        ("engine", "embeded", "'live', 'bridge', 'embedded' or None"),
        ("timeout", "5s", "a number"),
        ("timeout", -1, "0"),
        ("timeout", float("nan"), "0"),
        ("hibernate_after", 0, "0"),
        ("hibernate_after", "5m", "a number"),
        ("spares", -1, "0"),
        ("max_waiting", "many", "a whole number"),
        ("eager", "yes", "True or False"),
        ("environ", {"A": 1}, "texts"),
        ("command_args", "--x", "a list of texts"),
        ("recycle", 3, "a Recycle"),
        ("checkpoint", "yes", "'isolated'"),
    ],
)
def test_a_wrong_option_is_refused_where_the_child_is_declared(kind: Any, option: str, value: Any, words: str) -> None:
    arguments = (1,) if kind is OwnInit else ()
    told = refused(option, lambda: child(kind, *arguments, name="a", **{option: value}))
    assert words in str(told)


@pytest.mark.parametrize(
    ("kind", "option", "value", "words"),
    [
        (Agent, "concurency", 3, "did you mean `concurrency`?"),
        (Agent, "concurrency", "3", "a whole number"),
        (Agent, "concurrency", 0, "at least 1"),
        (Agent, "concurrency", True, "a whole number"),
        (Agent, "engines", 0, "at least 1"),
        (Agent, "step_attempts", 0, "at least 1"),
        (Agent, "isolation", "alone", "'exclusive' or 'shared'"),
        (Agent, "script", 3, "text"),
        (Agent, "no_such_thing", 3, "there are"),
        (Pool, "size", "4", "a whole number"),
        (Pool, "size", 0, "at least 1"),
        (Pool, "overflow", -1, "at least 0"),
        (Pool, "concurrency", 3, "there are"),
    ],
)
def test_each_kind_of_child_has_its_own_options(kind: Any, option: str, value: Any, words: str) -> None:
    assert words in str(refused(option, lambda: child(kind, name="a", **{option: value})))


@pytest.mark.parametrize("kind", [Agent, OwnInit, Pool, Client, Plain, Loose])
@pytest.mark.parametrize(
    ("option", "meant"),
    [("restrat", "restart"), ("regster", "register"), ("bugdet", "budget"), ("bakoff", "backoff"), ("namme", "name")],
)
def test_a_misspelt_option_of_every_child_is_told_by_its_own_name(kind: Any, option: str, meant: str) -> None:
    told = refused(option, lambda: child(kind, **{option: "x"}))
    assert f"did you mean `{meant}`? options of every child: " in told.allowed


def test_a_misspelt_option_of_a_dynamic_supervisor_is_told_by_its_own_name() -> None:
    assert "did you mean `max_children`?" in refused("max_childs", lambda: dynamic(max_childs=3)).allowed  # type: ignore[call-arg]


def test_a_wrong_class_attribute_is_refused_where_the_child_is_declared() -> None:
    class Wrong(Agent):
        concurrency: Any = "3"

    refused("concurrency", lambda: child(Wrong))
    refused("concurrency", lambda: one_for_one(Wrong))


@pytest.mark.parametrize("run", [lambda self: 1, lambda self, job: 1, lambda self, job, payload, more: 1, 3, "run"])
def test_a_run_that_cannot_be_called_with_a_job_and_a_payload_is_refused(run: Any) -> None:
    refused("run", lambda: child(type("Mine", (Agent,), {"run": run})))


def test_a_run_may_have_any_form_that_can_be_called_with_them() -> None:
    class Other:
        def __call__(self, job: Job, payload: Any) -> None: ...

    async def coroutine(self: Any, job: AsyncJob, payload: Any = None) -> None: ...

    for run in (lambda self, *args: 1, lambda self, job, payload, more=1: 1, Other(), staticmethod(print), coroutine):
        assert child(type("Mine", (Agent,), {"run": run})).name == "mine"


def test_an_argument_that_a_class_takes_itself_is_its_own_affair() -> None:
    assert child(Takes, timeout="3", flavour="sweet").kwargs == {"timeout": "3", "flavour": "sweet"}
    assert child(OwnInit, mine=3, concurrency=2).kwargs == {"mine": 3, "concurrency": 2}
    assert child(child(Agent, name="a", concurrency=2), name="b", script="b.mld").kwargs["concurrency"] == 2
    refused("concurency", lambda: child(child(Agent, name="a"), concurency=2))


def test_every_rung_of_a_ladder_is_checked_with_the_child_it_belongs_to() -> None:
    child(Agent, script="a.mld", wedge=wedge(5.0, ladder=[{"script": "b.mld"}]))
    refused("scrpt", lambda: child(Agent, script="a.mld", wedge=wedge(5.0, ladder=[{"scrpt": "b.mld"}])))


def test_a_child_that_is_started_later_is_checked_in_the_same_way() -> None:
    with Runtime(one_for_one(dynamic(name="some", extra_kwargs={"engine": "embedded"}))) as runtime:
        some = runtime.place("some").supervisor()
        refused("concurency", lambda: some.start_child(child(Agent, name="a", concurency=3)))
        refused("concurrency", lambda: some.start_child(child(Agent, name="a", concurrency="3")))
        assert not runtime.agents()


def test_what_a_dynamic_supervisor_adds_is_checked_with_each_child() -> None:
    with Runtime(one_for_one(dynamic(name="some", extra_kwargs={"concurency": 3}))) as runtime:
        with pytest.raises(ChildStartFailed, match=r"there is no option 'concurency'.*did you mean `concurrency`"):
            runtime.place("some").supervisor().start_child(child(Agent, name="a"))
        assert not runtime.agents()


# -- everything else that is declared ---------------------------------------------------------------------------------

TREE = one_for_one()


@pytest.mark.parametrize(
    ("make", "option", "value"),
    [
        (lambda **o: Runtime(TREE, **o), "name", "a/b"),
        (lambda **o: Runtime(TREE, **o), "name", ""),
        (lambda **o: Runtime(TREE, **o), "name", 3),
        (lambda **o: Runtime(TREE, **o), "store", 3),
        (lambda **o: Runtime(TREE, **o), "max_engines", 0),
        (lambda **o: Runtime(TREE, **o), "max_engines", "4"),
        (lambda **o: Runtime(TREE, **o), "min_free_memory", -1),
        (lambda **o: Runtime(TREE, **o), "min_free_memory", "1g"),
        (lambda **o: Runtime(TREE, **o), "stagger", -1),
        (lambda **o: Runtime(TREE, **o), "stagger", "x"),
        (lambda **o: Runtime(TREE, **o), "durability", "some"),
        (lambda **o: Runtime(TREE, **o), "start_timeout", 0),
        (lambda **o: Runtime(TREE, **o), "start_timeout", "5s"),
        (lambda **o: Runtime(TREE, **o), "drain_timeout", -1),
        (lambda **o: Runtime(TREE, **o), "stop_timeout", "soon"),
        (lambda **o: Runtime(TREE, **o), "control", "yes"),
        (lambda **o: Runtime(TREE, **o), "env", 3),
        (lambda **o: Runtime(TREE, **o), "limits", 3),
        (lambda tree: Runtime(tree), "tree", [child(Worker)]),
        (lambda tree: Runtime(tree), "tree", Worker),
        (Client, "timeout", "5s"),
        (Client, "timeout", -1),
        (Client, "engine", "embeded"),
        (Client, "isolation", "alone"),
        (Client, "max_engines", 0),
        (Client, "max_engines", "4"),
        (Client, "warm", -1),
        (Client, "max_waiting", -1),
        (Client, "max_events", 0),
        (Client, "command", 3),
        (Client, "command_args", "--x"),
        (Client, "command_args", [3]),
        (Client, "working_dir", 3),
        (Client, "environ", {"A": 1}),
        (Client, "environ", ["A"]),
        (Client, "strict", "yes"),
        (Client, "env", 3),
        (Client, "sink", 3),
        (AsyncClient, "timeout", "5s"),
        (EngineLimits, "in_flight", 0),
        (EngineLimits, "line_bytes", "1m"),
        (EngineLimits, "cancel_grace", -1.0),
        (EngineLimits, "term_grace", "x"),
        (Recycle, "max_leases", 0),
        (Recycle, "max_leases", "3"),
        (Recycle, "max_rss", "64m"),
        (Retry, "attempts", 0),
        (Retry, "attempts", "x"),
        (Retry, "delay", -1),
        (Retry, "factor", 0.5),
        (Retry, "longest", "1m"),
        (Retry, "jitter", 2),
        (Retry, "on", "ValueError"),
        (Retry, "on", ()),
        (JournalLimits, "max_deaths", 0),
        (JournalLimits, "max_deaths", "3"),
        (JournalLimits, "write_timeout", "3s"),
        (Retention, "keep_last", -1),
        (Retention, "keep_last", "all"),
        (Retention, "older_than", -1.0),
        (Retention, "older_than", "2d"),
        (StepPolicy, "on_interrupt", "stop"),
        (StepPolicy, "max_attempts", 0),
        (Journal.open, "poll_interval", 0),
        (Journal.open, "poll_interval", "x"),
        (Journal.open, "durability", "some"),
        (Backoff.of, "first", "1s"),
        (Backoff.of, "most", 0),
        (Backoff.of, "factor", 0),
        (Backoff.of, "jitter", 2),
        (Backoff, "first", "1s"),
        (Backoff, "jitter", 2),
        (RestartLimit, "restarts", -1),
        (RestartLimit, "within", "5s"),
        (lambda **o: budget(3, **o), "within", "5s"),
        (lambda **o: budget(within=5, **o), "max_restarts", -1),
        (lambda **o: budget(3, 5, **o), "then", "die"),
        (wedge, "after", "5s"),
        (lambda **o: wedge(5, **o), "times", 0),
        (lambda **o: wedge(5, **o), "ladder", 3),
        (lambda **o: wedge(5, **o), "then", "die"),
        (circuit_breaker, "name", 3),
        (circuit_breaker, "failures", -1),
        (circuit_breaker, "rate", 2),
        (circuit_breaker, "minimum", 0),
        (circuit_breaker, "within", "30s"),
        (circuit_breaker, "open_for", 0),
        (circuit_breaker, "growth", 0),
        (circuit_breaker, "longest", "x"),
        (circuit_breaker, "probes", 0),
        (circuit_breaker, "successes", 0),
        (circuit_breaker, "probe_timeout", 0),
        (circuit_breaker, "parks", "yes"),
        (circuit_breaker, "counts", 3),
        (one_for_one, "max_restarts", -1),
        (one_for_one, "within", 0),
        (one_for_one, "name", 3),
        (one_for_one, "name", "a/b"),
        (one_for_one, "auto_shutdown", "all"),
        (one_for_one, "give_up_as", "success"),
        (dynamic, "name", "a/b"),
        (dynamic, "max_children", -1),
        (dynamic, "extra_args", 3),
        (dynamic, "extra_kwargs", 3),
        (lambda **o: partitioned(child(Worker), name="p", **o), "partitions", 0),
        (lambda **o: partitioned(child(Worker), name="p", **o), "strategy", "all"),
        (lambda **o: child(Worker, **o), "name", "a/b"),
        (lambda **o: child(Worker, **o), "restart", "always"),
        (lambda **o: child(Worker, **o), "shutdown", "soon"),
        (lambda **o: child(Worker, **o), "start_timeout", 0),
        (lambda **o: child(Worker, **o), "significant", "yes"),
        (lambda **o: child(Worker, **o), "backoff", 3),
        (lambda **o: child(Worker, **o), "budget", 3),
        (lambda **o: child(Worker, **o), "breaker", 3),
        (lambda **o: child(Worker, **o), "wedge", 3),
        (lambda **o: child(Worker, **o), "register", "a/b"),
        (lambda **o: Bus().attach("k", print, **o), "backlog", 0),
        (lambda **o: Bus().attach("k", print, **o), "backlog", "x"),
        (lambda **o: Bus().attach("k", **o), "handler", 3),
        (lambda **o: Bus().attach_inline("k", **o), "handler", 3),
        (ActorSystem, "name", "a/b"),
        (ActorSystem, "workers", 0),
        (ActorSystem, "workers", "x"),
        (ActorSystem, "max_workers", 0),
        (ActorSystem, "env", 3),
        (ActorSystem, "sink", 3),
        (lambda **o: Runtime(TREE, **o), "on_end", 3),
        (state_timeout, "delay", "5s"),
        (event_timeout, "delay", -1),
        (lambda **o: named_timeout("t", **o), "delay", "5s"),
    ],
)
def test_a_wrong_value_is_refused_where_it_is_given(make: Callable[..., object], option: str, value: object) -> None:
    refused(option, lambda: make(**{option: value}))


def test_the_hint_for_a_name_of_a_runtime_says_what_a_name_is() -> None:
    told = refused("name", lambda: Runtime(TREE, name="a/b"))
    assert (
        told.message
        == "name must be a text that is not empty and holds no '/' and no half of a surrogate pair, got 'a/b'"
    )


@contextmanager
def one_runtime() -> Iterator[Runtime]:
    with Runtime(one_for_one(child(Worker, name="a"), child(Pool, name="p", engine="embedded"))) as runtime:
        yield runtime


def test_a_wrong_argument_of_a_call_is_refused_before_anything_is_written_or_sent() -> None:
    with one_runtime() as runtime:
        agent, pool = runtime.agent("a"), runtime.pool("p")
        for option, value in (
            ("deadline", "5s"),
            ("deadline", -1),
            ("deadline", True),
            ("priority", "high"),
            ("priority", 1.5),
            ("key", 3),
            ("key", ""),
            ("run_id", 3),
            ("run_id", "x" * 501),
        ):
            told = refused(option, lambda option=option, value=value: agent.run("x", **{option: value}))
            assert told.code == "INVALID_OPTION"
        run = agent.run("x", deadline=timedelta(minutes=1), priority=3, key="k")
        assert run.result(timeout=60).strip() == "x"
        assert [one.id for one in runtime.journal.runs()] == [run.id]
        for call, option in (
            (lambda: run.result(timeout="5s"), "timeout"),
            (lambda: run.outcome(timeout=-1), "timeout"),
            (lambda: run.cancel(reason=3), "reason"),
            (lambda: run.add_done_callback("f"), "function"),
            (lambda: agent.drain("5s"), "timeout"),
            (lambda: agent.wait_until_up("5s"), "timeout"),
            (lambda: agent.configure(concurrency="3"), "concurrency"),
            (lambda: agent.configure(concurency=3), "concurency"),
            (lambda: agent.configure(timeout=-1), "timeout"),
            (lambda: agent.process("show `x`", timeout="5s"), "timeout"),
            (lambda: agent.process("show `x`", timout=5), "timout"),
            (lambda: agent.execute("a.mld", strict="yes"), "strict"),
            (lambda: agent.execute(3), "filepath"),
            (lambda: agent.process("show `x`", file_path=3), "file_path"),
            (lambda: agent.process("show `x`", mode="loose"), "mode"),
            (lambda: agent.process_async("show `x`", timeout=-1), "timeout"),
            (lambda: agent.analyze("a.mld", timeout="5s"), "timeout"),
            (lambda: pool.checkout("5s"), "timeout"),
            (lambda: next(pool.map("a.mld", [1], concurrency=0)), "concurrency"),
            (lambda: pool.map("a.mld", [1], concurrency="x"), "concurrency"),
            (lambda: pool.resize(0), "size"),
            (lambda: pool.resize("4"), "size"),
            (lambda: pool.resize(1, -1), "overflow"),
            (lambda: agent.find(3), "key"),
            (lambda: run.notes("x"), "after"),
            (lambda: run.retry(rerun_interrupted="yes"), "rerun_interrupted"),
            (lambda: runtime.journal.runs(limit="x"), "limit"),
            (lambda: runtime.journal.runs(states=["done"]), "states"),
            (lambda: runtime.wait("5s"), "timeout"),
            (lambda: runtime.pause("a", 3), "reason"),
            (lambda: runtime.drain("5s"), "timeout"),
            (lambda: runtime.stop("5s"), "timeout"),
            (lambda: runtime.journal.claim(run.id, "me", ttl=0), "ttl"),
            (lambda: runtime.journal.claim(run.id, "me", ttl="5s"), "ttl"),
            (lambda: runtime.journal.claim_unfinished("a", "me", limit="x"), "limit"),
        ):
            refused(option, call)
        assert pool.status().engines.size == 4


def wrong_calls(job: Any) -> list[tuple[str, Callable[[], Any]]]:
    return [
        ("seconds", lambda: job.sleep("5s")),
        ("seconds", lambda: job.sleep(-1)),
        ("seconds", lambda: job.sleep(float("inf"))),
        ("moment", lambda: job.sleep_until("tomorrow")),
        ("moment", lambda: job.sleep_until(timedelta(days=1))),
        ("moment", lambda: job.sleep_until(float("nan"))),
        ("concurrency", lambda: job.map(print, [1], concurrency=0)),
        ("concurrency", lambda: job.map(print, [1], concurrency="x")),
        ("function", lambda: job.map("f", [1])),
        ("name", lambda: job.step(3, print)),
        ("function", lambda: job.step("a", 3)),
        ("idempotent", lambda: job.step("a", print, idempotent="yes")),
        ("retry", lambda: job.step("a", print, retry=3)),
        ("idempotent", lambda: job.process("show `x`", idempotent="yes")),
        ("retry", lambda: job.process("show `x`", retry=3)),
        ("timeout", lambda: job.process("show `x`", timeout="5s")),
        ("timout", lambda: job.process("show `x`", timout=5)),
        ("filepath", lambda: job.execute(3)),
        ("retry", lambda: job.execute("a.mld", retry="twice")),
        ("mode", lambda: job.execute("a.mld", mode="loose")),
        ("message", lambda: job.progress(3)),
        ("fraction", lambda: job.progress("x", "half")),
        ("fraction", lambda: job.progress("x", 2)),
        ("name", lambda: job.note(3)),
    ]


class Careless(Agent):
    engine = "embedded"

    def run(self, job: Job, payload: int) -> None:
        wrong_calls(job)[payload][1]()


class CarelessAsync(Agent):
    engine = "embedded"

    async def run(self, job: AsyncJob, payload: int) -> None:
        answer = wrong_calls(job)[payload][1]()
        if answer is not None:
            await answer


@pytest.mark.parametrize("kind", [Careless, CarelessAsync])
def test_a_wrong_argument_of_a_step_fails_the_run_by_name_and_writes_no_step(kind: type[Agent]) -> None:
    with Runtime(one_for_one(child(kind, name="a"))) as runtime:
        for number, (option, _) in enumerate(wrong_calls(None)):
            run = runtime["a"].run(number)
            with pytest.raises(RunFailed) as told:
                run.result(timeout=60)
            assert told.value.code == "INVALID_OPTION", (number, option, told.value)
            assert option in told.value.record.message
            assert run.steps() == [], (number, option)


class Echo(Actor):
    def on_receive(self, message: Any) -> Any:
        return message


def test_actors_topics_and_locks_refuse_wrong_times_and_counts() -> None:
    with ActorSystem() as system:
        ref, topics = system.start(Echo), PubSub(system, "topics")
        for option, call in (
            ("limit", lambda: topics.listen("news", limit=0)),
            ("limit", lambda: topics.listen("news", limit="x")),
            ("timeout", lambda: topics.listen("news").take(timeout="5s")),
            ("timeout", lambda: Registry(system, "names", keys="unique").lock("k", timeout="5s")),
            ("timeout", lambda: ref.shutdown("5s")),
        ):
            refused(option, call)


def test_tasks_refuse_wrong_times_and_counts() -> None:
    with ActorSystem() as system:
        tasks = Tasks.start(system)
        for option, call in (
            ("max_children", lambda: Tasks.start(system, max_children=-1)),
            ("shutdown", lambda: tasks.async_(print, shutdown="soon")),
            ("function", lambda: tasks.async_(3)),
            ("restart", lambda: tasks.start_child(print, restart="always")),
            ("timeout", lambda: tasks.async_(int).result(timeout="5s")),
            ("timeout", lambda: yield_many([tasks.async_(int)], timeout="5s")),
            ("timeout", lambda: await_many([tasks.async_(int)], timeout="5s")),
            ("timeout", lambda: tasks.async_stream([1], str, timeout="5s")),
            ("on_timeout", lambda: tasks.async_stream([1], str, on_timeout="x")),
            ("max_concurrency", lambda: tasks.async_stream([1], str, max_concurrency=0)),
        ):
            refused(option, call)


def test_an_option_is_no_argument_of_a_script_in_a_missing_folder(tmp_path: Path) -> None:
    """What depends on the machine is found out at the start, not at the declaration."""
    assert child(Agent, working_dir=tmp_path / "later", command="/not/yet").kwargs["command"] == "/not/yet"
