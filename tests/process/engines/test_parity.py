"""Every owner of engines asks the same questions, on every engine and switch: equal answers, refusals and marks."""

import asyncio
import os
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlld_sdk import Agent, AsyncClient, Client, Job, Pool, Runtime, child, one_for_one
from mlld_sdk.base.errors import MlldError
from mlld_sdk.journal.errors import RunParked
from mlld_sdk.runs.errors import StepFailed
from mlld_sdk.transport.embedded.server.misbehaviour import KEYS
from tests.support.agents import ENGINES, THINK, engine_options

LOOP = "loop(99999, 20ms) until @state.exit [\n  continue\n]\n"
LONG = {"t": "x" * 9000}
OUTAGE = 'exe llm @ask(q) = sh { exit 22 }\nshow `[@ask("one")]`\n'
EACH: dict[str, str] = {}
"""Stands for a payload that differs for each owner, so that none is served what another has paid for."""

Ask = Callable[..., Any]
"""Takes the name of a call (`process`, `process_result`, `execute`), its arguments and options."""

Outcome = tuple[Any, ...]


def outcome(ask: Callable[[], Any]) -> Outcome:
    """Return what came of a question: the answer with its marks, or the class and code of the refusal."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            answer = ask()
        except StepFailed as failed:
            return "refused", failed.type, failed.code
        except MlldError as error:
            return "refused", type(error).__name__, error.code
    flagged = [type(warning.message).__name__ for warning in told]
    if isinstance(answer, str):
        return "answered", answer, flagged
    writes = [(write.path, write.value) for write in answer.state_writes]
    return "answered", answer.output, writes, answer.truncated, answer.truncations


class Asking(Agent):
    """Asks as steps of runs."""

    outcomes: ClassVar[dict[int, Outcome]] = {}
    asked: ClassVar[dict[int, tuple[str, tuple[Any, ...], dict[str, Any]]]] = {}

    def run(self, job: Job, payload: dict[str, int]) -> None:
        number = payload["number"]
        if number in self.outcomes:  # the engine has failed, and the run is repeated
            return
        method, args, options = self.asked[number]
        self.outcomes[number] = outcome(lambda: getattr(job, method)(*args, **options))


def of_client(client: Client) -> Ask:
    return lambda method, *args, **options: outcome(lambda: getattr(client, method)(*args, **options))


def in_a_loop(face: Any) -> Ask:
    return lambda method, *args, **options: outcome(lambda: asyncio.run(getattr(face, method)(*args, **options)))


def by_handle(owner: Any) -> Ask:
    """Ask by `process_async` and `execute_async`."""

    def ask(method: str, *args: Any, **options: Any) -> Outcome:
        if method == "process_result":
            return outcome(lambda: owner.process_async(*args, **options).full_result())
        return outcome(lambda: getattr(owner, f"{method}_async")(*args, **options).result())

    return ask


def when_up(handle: Any, ask: Ask) -> Ask:
    """Ask when the last engine's end has been seen to."""

    def patiently(*args: Any, **options: Any) -> Outcome:
        while True:
            assert handle.wait_until_up(20)
            came = ask(*args, **options)
            if came[1:2] not in (("AgentUnavailable",), ("OwnerGone",)):  # in the moment of its end
                return came

    return patiently


def of_checkout(pool: Any) -> Ask:
    def ask(method: str, *args: Any, **options: Any) -> Outcome:
        with pool.checkout(20) as engine:
            return outcome(lambda: getattr(engine, method)(*args, **options))

    return ask


def as_a_step(handle: Any) -> Ask:
    def ask(method: str, *args: Any, **options: Any) -> Outcome:
        while True:
            number = len(Asking.asked)
            Asking.asked[number] = method, args, options
            with suppress(RunParked):  # the agent ended before the code of its run had heard of the engine's failure
                handle.run({"number": number}).result(60)
                return Asking.outcomes[number]
            args = tuple({"n": f"step {number}"} if isinstance(arg, dict) and "n" in arg else arg for arg in args)

    return ask


Group = dict[str, Ask]


@contextmanager
def owners(directory: Path, options: dict[str, Any], *, apart: bool = False) -> Iterator[list[Group]]:
    """Make one owner of every kind; those of one group use the same engines, so they ask one after the other.

    The engines of different groups work in the same directory, or `apart` in different ones.
    """
    options = {**options, "timeout": 30.0}

    def of_group(name: str) -> dict[str, Any]:
        folder = directory / name if apart else directory
        folder.mkdir(parents=True, exist_ok=True)
        return {"working_dir": folder, **options}

    tree = one_for_one(
        child(Asking, name="agent", **of_group("agent")),
        child(Agent, name="sharing", isolation="shared", **of_group("sharing")),
        child(Pool, name="pool", size=1, **of_group("pool")),
        max_restarts=10_000,
        within=1,
    )
    with ExitStack() as stack:
        client = stack.enter_context(Client(**of_group("client")))
        exclusive = stack.enter_context(Client(isolation="exclusive", max_engines=1, warm=0, **of_group("exclusive")))
        runtime = stack.enter_context(Runtime(tree, store=directory / "state.db", durability="normal"))
        agent, sharing, pool = runtime["agent"], runtime["sharing"], runtime.pool("pool")
        yield [
            {
                "client": of_client(client),
                "client, by handle": by_handle(client),
                "asynchronous client": in_a_loop(AsyncClient(client=client)),
            },
            {"exclusive client": of_client(exclusive), "exclusive client, by handle": by_handle(exclusive)},
            {
                "agent": when_up(agent, of_client(agent)),
                "agent, by handle": when_up(agent, by_handle(agent)),
                "agent, asynchronous": when_up(agent, in_a_loop(agent.aio)),
                "step": when_up(agent, as_a_step(agent)),
            },
            {
                "sharing agent": when_up(sharing, of_client(sharing)),
                "sharing agent, asynchronous": when_up(sharing, in_a_loop(sharing.aio)),
            },
            {"pool": of_client(pool), "pool, asynchronous": in_a_loop(pool.aio), "checkout": of_checkout(pool)},
        ]


def all_outcomes(
    groups: list[Group], method: str, *args: Any, at_once: bool = True, **options: Any
) -> dict[str, Outcome]:
    """Ask all owners; those of different groups `at_once`, where no warnings are to be caught, which threads share."""
    came: dict[str, Outcome] = {}
    lock = threading.Lock()

    def ask_group(group: Group) -> None:
        for name, ask in group.items():
            # A job has no `process_result`, and refuses by itself what the journal cannot store.
            if name != "step" or (method != "process_result" and "object" not in repr(options)):
                answer = ask(method, *({"n": name} if arg is EACH else arg for arg in args), **options)
                with lock:
                    came[name] = answer

    with ThreadPoolExecutor(len(groups) if at_once else 1) as threads:
        list(threads.map(ask_group, groups))
    return came


def assert_equal(came: dict[str, Outcome]) -> Outcome:
    first = came["client"]
    assert came == dict.fromkeys(came, first)
    return first


QUESTIONS: dict[str, tuple[tuple[Any, ...], dict[str, Any], tuple[Any, ...]]] = {
    "answer": (("process", 'show "x"'), {}, ("answered", "x\n")),
    "result": (("process_result", 'output "v" to "state://p"\nshow "x"'), {"state": {"p": ""}}, ("answered", "x\n")),
    "file": (("execute", "hello.mld", {"name": "Ada"}), {}, ("answered", "Ada\n")),
    "no such file": (("execute", "missing.mld"), {}, ("refused", "ScriptError", "FILE_NOT_FOUND")),
    "script fails": (("process", "show @nobody_defined_this"), {}, ("refused", "ScriptError")),
    "script is none": (("process", 'show "'), {}, ("refused", "ScriptError", "PARSE_ERROR")),
    "wrong option": (("process", 'show "x"'), {"mode": "none"}, ("refused", "InvalidOption")),
    "no form in JSON": (("process", 'show "x"'), {"payload": {"a": object()}}, ("refused", "UnserialisableParams")),
    "late": (("process", LOOP), {"state": {"exit": False}, "timeout": 0.6}, ("refused", "CallTimeout", "TIMEOUT")),
    "long": (("execute", "long.mld", LONG), {}, ("answered",)),
    "long and strict": (("execute", "long.mld", LONG), {"strict": True}, ()),
    "long text": (("process", "show @payload.t"), {"payload": LONG}, ("answered",)),
    "outage": (("process", OUTAGE), {}, ("answered", "[]\n")),
    "outage that fails": (("process", OUTAGE), {"on_command_failure": "fail"}, ("refused",)),
}


WARNED_OF = ("long text", "outage")
"""Questions whose answers come with a warning, which threads share."""


def prepared(directory: Path) -> Path:
    (directory / "hello.mld").write_text("show @payload.name\n")
    (directory / "long.mld").write_text("show @payload.t\n")
    return directory


def ask_all_questions(groups: list[Group], cuts: bool) -> None:
    for name, (args, options, expected) in QUESTIONS.items():
        first = assert_equal(all_outcomes(groups, *args, at_once=name not in WARNED_OF, **options))
        assert first[: len(expected)] == expected, name
        if name == "long":
            assert first[3] is cuts
        if name == "long and strict":
            assert first[:2] == (("refused", "TruncatedResult") if cuts else ("answered", LONG["t"] + "\n"))
        if name == "long text":
            assert first[2] == (["TruncationWarning"] if cuts else [])
        if name == "outage":
            assert first[2] == ([] if cuts else ["UnansweredWarning"])
        if name == "outage that fails" and not cuts:
            assert first == ("refused", "CommandFailed", "COMMAND_FAILED")


@pytest.mark.timeout(180)  # on the real engine, which starts anew after most failures
@pytest.mark.parametrize("engine", ENGINES)
def test_every_owner_gives_the_same_answers(engine: str, tmp_path: Path) -> None:
    with owners(prepared(tmp_path), engine_options(engine)) as groups:
        ask_all_questions(groups, cuts=engine == "live")


def test_every_owner_gives_the_same_answers_where_the_engine_has_the_real_ones_habits(tmp_path: Path) -> None:
    options = {"engine": "embedded", "command_args": ["--like-real", "--survive"]}
    with owners(prepared(tmp_path), options) as groups:
        ask_all_questions(groups, cuts=True)


SWITCHES = {
    "refuse-to-start": ("3", ("refused", "EngineDiedAtStart")),
    "start-delay": ("0.05", ("answered", "x\n")),
    "die-at-request": ("1", ("refused", "EngineDiedAtStart")),
    "die-at-step": ("1", ("refused", "EngineDied")),
    "die-after-step": ("1", ("refused", "EngineDied")),
    "die-with": ("7,die-at-request=1", ("refused", "EngineDiedAtStart")),
    "hang-at-request": ("1", ("refused", "CallTimeout", "TIMEOUT")),
    "hang-at-step": ("1", ("refused", "CallTimeout", "TIMEOUT")),
    "stop-reading-after": ("0", ("refused", "CallTimeout", "TIMEOUT")),
    "flood-stdout": ("64k", ("answered", "x\n")),
    "flood-stderr": ("64k", ("answered", "x\n")),
    "garble-every": ("1", ("refused", "CallTimeout", "TIMEOUT")),
    "glue-every": ("1", ()),
    "split-lines": ("7", ("answered", "x\n")),
    "forge-id": ("1", ("answered", "x\n")),
    "slow": ("0.02", ("answered", "x\n")),
    "leak": ("1m", ("answered", "x\n")),
    "ignore-sigterm": ("1", ("answered", "x\n")),
    "ignore-eof": ("1", ("answered", "x\n")),
    "orphans": ("group", ("answered", "x\n")),
    "once": ("begun,die-at-request=1", ("refused", "EngineDiedAtStart")),  # a file where the engine works
}
"""Values of the switches, and how the client's outcome begins."""


def test_every_switch_is_asked_for() -> None:
    assert set(SWITCHES) == set(KEYS)


@pytest.mark.parametrize("switch", sorted(set(SWITCHES) - {"once"}))
def test_every_owner_sees_the_same_of_an_engine_that_misbehaves(switch: str, tmp_path: Path) -> None:
    value, expected = SWITCHES[switch]
    options = {"engine": "embedded", "command_args": ["--misbehave", f"{switch}={value}"]}
    more: dict[str, Any] = {"timeout": 0.7} if expected[2:] == ("TIMEOUT",) or not expected else {}
    question: tuple[Any, ...] = ("process", 'show "x"')
    if "step" in switch:
        (tmp_path / "think.mld").write_text(THINK)
        question, more = ("execute", "think.mld", EACH), {**more, "checkpoint": True}
    with owners(tmp_path, options) as groups:
        if "EngineDiedAtStart" in expected:  # a client soon starts no third engine, which is a refusal of its own
            groups = [{next(iter(group)): next(iter(group.values()))} for group in groups]
        first = assert_equal(all_outcomes(groups, *question, **more))
        assert first[: len(expected)] == expected
        if switch == "ignore-eof":  # or each would be waited for
            for pid in subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize("turn", range(3))
def test_every_owner_is_answered_after_an_engine_that_misbehaves_once(turn: int, tmp_path: Path) -> None:
    """The first engine of a group misbehaves, and no other: each turn other owners of the groups are the first to ask.

    A step is not asked: when its engine has failed it is repeated, perhaps before the code hears of the failure.
    """
    value, expected = SWITCHES["once"]
    options = {"engine": "embedded", "command_args": ["--misbehave", f"once={value}"]}
    with owners(tmp_path, options, apart=True) as groups:
        groups = [{name: ask for name, ask in group.items() if name != "step"} for group in groups]
        first = [dict([list(group.items())[turn % len(group)]]) for group in groups]
        came = all_outcomes(first, "process", 'show "x"')
        assert {answer[:2] for answer in came.values()} == {expected}, came
        came = all_outcomes(groups, "process", 'show "x"')
        assert assert_equal(came) == ("answered", "x\n", [])


@pytest.mark.parametrize("kind", ["agent", "sharing", "pool", "client"])
def test_more_requests_than_may_wait_are_refused_at_once_by_every_owner(kind: str, tmp_path: Path) -> None:
    started = 'output "on" to "state://on"\n' + LOOP
    options: dict[str, Any] = {"engine": "embedded", "max_waiting": 3}
    tree = one_for_one(
        child(Agent, name="agent", **options),
        child(Agent, name="sharing", isolation="shared", **options),
        child(Agent, name="busy", engine="embedded"),
        child(Pool, name="pool", size=1, **options),
    )
    with (
        Runtime(tree, store=tmp_path / "state.db", durability="normal", max_engines=1) as runtime,
        Client(isolation="exclusive", max_engines=1, warm=0, **options) as client,
    ):
        owner: Any = client if kind == "client" else runtime.pool("pool") if kind == "pool" else runtime[kind]
        first = (runtime["busy"] if kind == "sharing" else owner).process_async(
            started, state={"exit": False, "on": ""}
        )
        assert first.next_event(timeout=60).type == "state_write"
        waiting = [owner.process_async(f'show "{n}"') for n in range(3)]
        for ask in (owner.process_async, owner.process):
            assert outcome(lambda ask=ask: ask('show "one too many"')) == (
                "refused",
                "EngineOverloaded",
                "BACKPRESSURE",
            )
        assert waiting[0].cancel()
        waiting.append(owner.process_async('show "3"'))
        first.update_state("exit", True)
        assert [handle.result(60) for handle in waiting[1:]] == ["1\n", "2\n", "3\n"]
