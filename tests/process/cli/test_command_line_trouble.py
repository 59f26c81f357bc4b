"""The command line when things are not as they should be: dead sockets, deaf services, closed pipes, wrong words."""

import contextlib
import io
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Pool, Retry, Runtime, child, one_for_one
from mlld_sdk.base.folders import private_folder
from mlld_sdk.cli.doctor import check_store
from mlld_sdk.cli.main import main
from mlld_sdk.control import client
from mlld_sdk.control.protocol import (
    Answer,
    AskEvents,
    AskTree,
    ControlError,
    Refused,
    send,
    socket_folder,
    socket_path,
)
from mlld_sdk.demo.picture import Story
from mlld_sdk.demo.stage import hang
from mlld_sdk.journal import Journal, JournalLimits, StepPolicy
from mlld_sdk.journal.errors import JournalLocked
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]

Say = Callable[..., str]


class Reviewer(Agent):
    """Fails with an exception of its own."""

    engine = "embedded"

    def run(self, job: Any, payload: Any) -> Any:
        raise LookupError(f"there is no {payload}")


class Patient(Agent):
    """Tries again what fails, in a minute."""

    engine = "embedded"

    def run(self, job: Any, payload: Any) -> Any:
        return job.step("flaky", int, payload, retry=Retry(delay=60))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path))
    return socket_folder()


@pytest.fixture
def runtime(folder: Path) -> Iterator[Runtime]:
    tree = one_for_one(
        child(Reviewer, name="reviewer"), child(Pool, name="pool", engine="embedded", size=1), child(Patient)
    )
    with Runtime(tree, control=True) as runtime:
        yield runtime


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command in this process; gives what it said, on stdout if all went well and else on stderr."""

    def run(*words: str, status: int = 0) -> str:
        assert main(words) == status
        said = capsys.readouterr()
        return said.err if status == 1 else said.out

    return run


def killed(path: Path) -> None:
    """Leave a socket as a process that was killed does."""
    private_folder(path.parent)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


def test_the_socket_of_a_killed_runtime_does_not_hide_the_one_that_runs(runtime: Runtime, say: Say) -> None:
    killed(socket_path("before"))
    assert "HEALTHY" in say("tree")


def test_a_runtime_that_was_killed_is_named_when_none_runs(folder: Path, say: Say) -> None:
    assert "another user" in say("tree", status=1)
    killed(socket_path("before"))
    assert "killed and not started again: before" in say("tree", status=1)
    assert "its runs go on" in say("tree", "--runtime", "before", status=1)


def test_a_service_that_does_not_answer_is_named_by_its_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    monkeypatch.setattr(client, "LOOK_TIMEOUT", 0.2)
    private_folder(folder)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(socket_path("deaf")))
        deaf.listen()
        said = say("tree", status=1)
        assert f"the runtime (process {os.getpid()}) has not answered for 0.2 s" in said
        assert "see what its process does" in said


def test_a_refusal_is_read_from_a_connection_that_is_closed_already(folder: Path) -> None:
    private_folder(folder)
    with socket.socket(socket.AF_UNIX) as strict:
        strict.bind(str(socket_path("strict")))
        strict.listen()
        with client.Remote("strict", pid=os.getpid()) as remote:
            connection, _ = strict.accept()
            send(connection, Answer(code="WRONG_USER", message="this runtime belongs to another user"))
            connection.close()
            with pytest.raises(Refused, match="another user"):
                remote.ask(AskTree())


def test_an_operator_gets_in_beside_many_who_follow(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    monkeypatch.setattr(client, "LOOK_TIMEOUT", 5.0)
    with contextlib.ExitStack() as followers:
        for _ in range(20):
            followers.enter_context(client.Remote("root")).ask(AskEvents(after=-1))
        assert "HEALTHY" in say("tree")


def test_a_terminal_without_box_drawing_shows_the_tree(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["tree"]) == 0
    terminal.flush()
    assert b"?? reviewer" in terminal.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_reader_that_has_enough_is_no_error(runtime: Runtime) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "mlld_sdk", "tree"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as command:
        assert command.stdout is not None
        command.stdout.close()
        assert command.stderr is not None
        assert command.stderr.read() == b""
        assert command.wait(60) == 0


def test_a_line_the_shell_cannot_read_does_not_end_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = 'evaluate pool "show\nshell\nrun service.py\npool> show "still here"\n'
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    assert main(["shell", "--runtime", "root"]) == 0
    said = capsys.readouterr()
    assert "No closing quotation" in said.err
    assert said.err.count("does not work inside the shell") == 2
    assert "still here" in said.out


def test_a_failed_run_shows_its_exception_and_where_it_was_raised(runtime: Runtime, say: Say) -> None:
    run = runtime.agent("reviewer").run("draft")
    eventually(lambda: run.state == "failed")
    said = say("runs", "show", run.id)
    assert "EXCEPTION: LookupError: there is no draft" in said
    assert 'raise LookupError(f"there is no {payload}")' in said
    assert "no step was begun" in said
    assert "of a run tells `runs show`" in say("why", run.id, status=1)


def test_a_step_that_waits_for_its_next_attempt_is_shown_as_such(runtime: Runtime, say: Say) -> None:
    run = runtime.agent("patient").run("no number")
    eventually(lambda: "to be retried" in say("runs", "show", run.id))
    assert "invalid literal" in say("runs", "show", run.id)
    say("runs", "cancel", run.id)
    eventually(lambda: runtime.agent("patient").status().state == "idle")


def test_a_list_that_may_be_longer_says_so(runtime: Runtime, say: Say) -> None:
    for number in range(3):
        runtime.agent("reviewer").run(number)
    assert "these are the newest 2; --before" in say("runs", "ls", "--limit", "2")
    assert "these are" not in say("runs", "ls")


def test_runs_are_listed_newest_first_by_agent_and_page(runtime: Runtime, say: Say) -> None:
    ids = [runtime.agent("reviewer").run(number).id for number in range(3)]
    runtime.journal.submit("root/retired", 1, run_id="of-old")

    def listed(*words: str) -> list[str]:
        return [run["id"] for run in json.loads(say("runs", "ls", "--json", *words))["runs"]]

    assert listed() == ["of-old", *reversed(ids)]
    assert listed("--limit", "2") == ["of-old", ids[2]]
    assert listed("--before", ids[2]) == [ids[1], ids[0]]
    assert listed("--agent", "reviewer", "--limit", "1") == [ids[2]]
    assert listed("--agent", "root/reviewer") == [*reversed(ids)]
    assert listed("--agent", "retired") == ["of-old"]  # it is not declared any more, its runs are there
    assert "reviewr" in say("runs", "ls", "--agent", "reviewr", status=1)
    assert "nope" in say("runs", "ls", "--before", "nope", status=1)


def test_what_an_interrupted_step_gave_can_be_said_by_hand(runtime: Runtime, say: Say) -> None:
    journal = runtime.journal
    run = journal.submit("root/pool", 1)
    lease = journal.claim(run.id, "somebody")
    lease.begin_step("1", "charge", "card", StepPolicy())
    lease.park_run("interrupted")
    assert "is finished; `runs retry` goes on" in say("runs", "resolve", run.id, "1", '{"paid": true}')
    (step,) = journal.steps(run.id)
    assert (step.state, journal.step_result(step)) == ("finished", {"paid": True})
    assert "no unfinished step" in say("runs", "resolve", run.id, "1", "null", status=1)
    assert "is no JSON" in say("runs", "resolve", run.id, "1", "{", status=1)
    for words in ((), ("1",)):
        with pytest.raises(SystemExit):
            main(("runs", "resolve", run.id, *words))
    with pytest.raises(SystemExit):
        main(("runs", "submit", "pool", "1", "2"))


def test_the_name_of_a_runtime_is_refused_when_it_could_be_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/b", "", ".hidden", "x" * 65):
        with pytest.raises(SystemExit):
            main(("run", "service.py", "--name", name))
        assert "is no name" in capsys.readouterr().err


def test_numbers_of_things_are_not_negative_and_nought_is_none(runtime: Runtime, say: Say) -> None:
    assert say("events", "--last", "0") == ""
    assert say("events", "--last", "1").count("\n") == 1
    for words in (["events", "--last", "-1"], ["runs", "ls", "--limit", "-1"], ["crashes", "--limit", "x"]):
        with pytest.raises(SystemExit, match="2"):
            main(words)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "service.py", "--runtime", "x"],
        ["run", "service.py", "--json"],
        ["shell", "--json"],
        ["demo", "--json"],
        ["doctor", "--runtime", "x"],
        ["demo", "ladder", "--picture", "x.svg"],
        ["demo", "breaker", "--picture", "/nowhere/x.svg"],
    ],
)
def test_an_option_that_would_do_nothing_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.startswith("mlld-otp 0.")


def test_what_is_no_service_is_refused_with_a_hint(tmp_path: Path, say: Say) -> None:
    (tmp_path / "three.py").write_text("tree = 3\n")
    assert "declares a `tree` that is 3" in say("run", str(tmp_path / "three.py"), status=1)
    assert "there is no file" in say("run", str(tmp_path), status=1)


def test_a_runtime_that_is_told_the_impossible_says_what_is_possible(runtime: Runtime, say: Say) -> None:
    assert "`restart`" in say("resume", "reviewer", status=1)
    assert "the printed tree" in say("pause", "nobody", "--reason", "x", status=1)
    assert "runs go to agents" in say("runs", "submit", "pool", status=1)


def test_a_journal_that_takes_no_writes_makes_the_verdict_degraded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "state.db"
    tree = one_for_one(child(Reviewer, name="reviewer"))
    with Runtime(tree, store=store, control=True, limits=JournalLimits(write_timeout=0.4)) as runtime:
        other = sqlite3.connect(store, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalLocked):
            runtime.agent("reviewer").run(1)
        assert runtime.verdict().word == "degraded"
        assert main(["tree"]) == 3
        said = capsys.readouterr().out
        assert said.startswith("DEGRADED   1 degraded · 2 healthy\njournal: takes no writes: another process holds")
        assert main(["top"]) == 0
        assert "journal: takes no writes: another process holds" in capsys.readouterr().out
        other.rollback()
        other.close()
        runtime.agent("reviewer").run(2)
        assert runtime.verdict().word == "healthy"
        main(["tree", "--json"])
        assert json.loads(capsys.readouterr().out)["verdict"]["concerns"] == []


def test_the_doctor_sees_what_is_wrong_with_a_store(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with Journal.open(path) as journal:
        for number in range(300):
            journal.submit("kind", {"n": number, "text": "x" * 200})
    assert check_store(path).finding == "ok"
    whole = path.read_bytes()

    path.write_bytes(whole[:8192] + bytes(255 - byte for byte in whole[8192:]))
    assert "is damaged" in check_store(path).found
    path.write_bytes(whole)

    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    assert "has version 99" in check_store(path).found

    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE x (y)")
    other.close()
    assert "of something else" in check_store(tmp_path / "other.db").found
    assert "is a folder" in check_store(tmp_path).found


def test_a_picture_that_cannot_be_written_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hang(tmp_path / "p.svg", Story(title="t", goal=1)) == 0
    assert hang(tmp_path, Story(title="t", goal=1)) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_socket_path_that_is_too_long_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / ("x" * 120)))
    with pytest.raises(ControlError, match=r"too long.*short path"):
        Runtime(one_for_one(child(Reviewer)), control=True).start()
