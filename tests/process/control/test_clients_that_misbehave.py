"""Clients of the control socket that drip, lie, do not read or vanish: they cost nothing, and an operator gets in."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Runtime, child, one_for_one
from mlld_sdk.base.folders import private_folder
from mlld_sdk.control import protocol
from mlld_sdk.control.client import Remote, running
from mlld_sdk.control.protocol import AskEvents, AskTree, AskWho, ControlError, Operate, Refused, socket_path, sockets
from mlld_sdk.control.server import CONNECTIONS, SLOW
from tests.support.command_line import command_line
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]

SERVICE = """
from mlld_sdk import Agent, child, one_for_one
tree = one_for_one(child(Agent, name="a", engine="embedded"))
"""


class Worker(Agent):
    """Gives back what it gets, or fails with an exception that has no text."""

    engine = "embedded"

    def run(self, job: Any, payload: Any) -> Any:
        if payload == "fail":
            raise Mute("you will not read this")
        return payload


class Mute(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Nowhere(tzinfo):
    """A place whose time nobody knows."""

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        raise RuntimeError("no")


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """Run a runtime; no thread of its control socket may end with an exception."""
    failed: list[object] = []
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / "rt"))
    monkeypatch.setattr(threading, "excepthook", failed.append)
    with Runtime(one_for_one(child(Worker, name="worker")), name="service", control=True) as runtime:
        yield runtime
        eventually(lambda: not client_threads())
    assert not failed


def client_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "control-client"]


def connected() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(socket_path("service")))
    connection.settimeout(60)
    return connection


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def asked(body: bytes) -> protocol.Answer:
    """Send something as a request and return the answer."""
    with connected() as connection:
        connection.sendall(framed(body))
        return protocol.decode_answer(protocol.receive(connection) or b"")


@contextlib.contextmanager
def dripping(*clients: socket.socket) -> Iterator[None]:
    """Send a byte from each client every few milliseconds."""
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.02):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def crowd(count: int = CONNECTIONS) -> Iterator[list[socket.socket]]:
    """Connect so many clients that announce a large request and have not sent it."""
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(connected()) for _ in range(count)]
        for client in clients:
            client.sendall(struct.pack(">I", 4 << 20))
        yield clients


def test_an_operator_gets_in_beside_clients_that_drip(runtime: Runtime, tmp_path: Path) -> None:
    with crowd(2 * CONNECTIONS + 1) as clients, dripping(*clients):  # as many again wait outside
        for _ in range(3):
            said = command_line(tmp_path, "tree")
            assert said.status == 0, said.err


def test_a_process_at_which_too_many_wait_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / "rt"))
    private_folder(socket_path("service").parent)
    with socket.socket(socket.AF_UNIX) as deaf, contextlib.ExitStack() as opened:
        deaf.bind(str(socket_path("service")))
        deaf.listen(0)
        opened.enter_context(connected())
        with pytest.raises(ControlError, match="many others wait"):
            Remote("service", patience=0.2)


def test_an_operator_gets_in_beside_clients_that_are_silent_or_do_not_read(runtime: Runtime, tmp_path: Path) -> None:
    with contextlib.ExitStack() as opened:
        for number in range(CONNECTIONS):
            client = opened.enter_context(connected())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while number % 2:  # until neither side's buffer takes more
                    client.sendall(framed(b'{"ask":"tree"}'))
        said = command_line(tmp_path, "tree")
        assert said.status == 0, said.err


def test_a_request_has_to_be_there_in_time_however_it_drips(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "TIMEOUT", 0.3)
    with crowd(1) as (client,), dripping(client):
        assert client.recv(1) == b""


def test_an_answer_has_to_be_there_in_time_however_it_drips(runtime: Runtime) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, dripping(theirs):
        theirs.sendall(struct.pack(">I", 4 << 20))
        with pytest.raises(TimeoutError):
            protocol.receive(ours, 0.3)


def test_those_who_wait_for_news_leave_places_for_those_who_look(runtime: Runtime, tmp_path: Path) -> None:
    refused: list[str] = []
    told: list[object] = []

    def follow() -> None:
        with Remote("service") as remote:
            try:
                told.append(remote.ask(AskEvents(after=runtime.history.last, wait=20)))
            except Refused as error:
                refused.append(error.code)

    followers = [threading.Thread(target=follow) for _ in range(SLOW + 3)]
    for follower in followers:
        follower.start()
    eventually(lambda: len(refused) == 3)
    assert set(refused) == {"BUSY"}
    assert command_line(tmp_path, "tree").status == 0
    assert not told
    runtime.pause("worker")
    for follower in followers:
        follower.join()


def deep(levels: int) -> bytes:
    return b'{"ask":"run.submit","agent":"worker","payload":' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b"[" * 100_000, {"MALFORMED"}),
        (deep(100_000), {"MALFORMED"}),
        (b'{"ask":"why","subject":"\xff\xfe"}', {"MALFORMED"}),
        (b'{"ask":"why","subject":"\\ud800"}', {"MALFORMED"}),
        (b'{"ask":"run.submit","agent":"worker","payload":' + b"9" * 5_000 + b"}", {"MALFORMED"}),
        (b"", {"MALFORMED"}),
        (b'{"ask":"why","subject":"../../etc/passwd\\u0000"}', {"NOT_FOUND"}),
        (b'{"ask":"runs","limit":-1}', {"INVALID_OPTION", None}),
        (b'{"ask":"crashes","limit":-5}', {None}),
        (b'{"ask":"events","after":99999999999999999999}', {None}),
    ],
)
def test_whatever_is_asked_gets_a_typed_answer(runtime: Runtime, body: bytes, codes: set[str | None]) -> None:
    assert asked(body).code in codes
    assert asked(b'{"ask":"who"}').data["pid"] == os.getpid()


@pytest.mark.parametrize("levels", range(720, 1_080, 30))
def test_a_payload_of_any_depth_is_taken_or_refused_in_words(runtime: Runtime, levels: int) -> None:
    answer = asked(deep(levels))
    if answer.code is None:
        run = answer.data["run_id"]
        eventually(lambda: runtime.journal.run(run).state not in ("pending", "running"))
        with Remote("service") as remote:
            try:
                remote.ask(protocol.AskRun(run_id=run))
            except ControlError as error:
                assert error.code == "TOO_DEEP"  # noqa: PT017 - it depends on how deep this test is in the stack itself
    else:
        assert answer.code in ("MALFORMED", "TOO_DEEP", "VALUE_NOT_STORABLE")


def test_clients_that_vanish_or_lie_about_their_frames_leave_nothing_behind(runtime: Runtime) -> None:
    before = len(os.listdir("/proc/self/fd"))
    said = (b"", b"\0", struct.pack(">I", 100) + b"half", framed(b'{"ask":"tree"}'), struct.pack(">I", 0xFFFFFFFF))
    for sent in said * 20:
        with connected() as client:
            client.sendall(sent)
    with Remote("service") as remote:
        assert remote.ask(AskTree())["verdict"]["word"] == "healthy"
    eventually(lambda: not client_threads())
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_exceptions_and_answers_without_a_text_are_answered_all_the_same(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = runtime.agent("worker").run("fail")
    eventually(lambda: run.state == "failed")
    assert "Mute" in command_line(tmp_path, "runs", "show", run.id).out

    def pause(path: str, reason: str = "") -> None:
        raise Mute

    monkeypatch.setattr(runtime, "pause", pause)
    nested: list[Any] = []
    for _ in range(5_000):
        nested = [nested]
    odd = {"half": "\ud800", "mute": Mute(), "set": {1}}
    with Remote("service") as remote:
        with pytest.raises(Refused, match="Mute has no text") as caught:
            remote.ask(Operate(what="pause", path="worker"))
        assert caught.value.code == "INTERNAL"
        for missing, code in (
            (nested, "TOO_DEEP"),
            (datetime(2000, 1, 1, tzinfo=Nowhere()), "UNWRITABLE"),
            ("x" * (9 << 20), "TOO_LARGE"),
        ):
            monkeypatch.setattr(runtime, "missing", lambda missing=missing: missing)
            with pytest.raises(Refused) as caught:
                remote.ask(protocol.AskMissing())
            assert caught.value.code == code
        monkeypatch.setattr(runtime, "missing", lambda: odd)
        assert remote.ask(protocol.AskMissing())["missing"]["mute"] == "<Mute has no text: RuntimeError>"


def test_what_cannot_be_sent_is_said_before_anything_is(runtime: Runtime) -> None:
    nested: list[Any] = []
    for _ in range(5_000):
        nested = [nested]
    with Remote("service") as remote:
        for payload, code in ((nested, "TOO_DEEP"), ("x" * (9 << 20), "TOO_LARGE")):
            with pytest.raises(ControlError) as caught:
                remote.ask(protocol.SubmitRun(agent="worker", payload=payload))
            assert caught.value.code == code
        assert remote.ask(AskWho())["pid"] == os.getpid()


def test_a_second_process_of_the_name_and_dead_sockets_are_told_apart_in_a_crowd(
    runtime: Runtime, tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(socket_path("service", gone.pid)))
    with crowd(2 * CONNECTIONS) as clients, dripping(*clients):
        second = subprocess.Popen(
            [sys.executable, "-m", "mlld_sdk", "run", "service.py", "--quiet"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            both = {os.getpid(), second.pid}
            eventually(lambda: {one.pid for one in running("service")} == both)
            assert {one.pid for one in sockets()} == both
            said = command_line(tmp_path, "tree")
            assert said.status == 0, said.err
            assert said.out.count("HEALTHY") == 2
        finally:
            second.send_signal(signal.SIGTERM)
            assert second.wait(60) == 0
        assert {one.pid for one in sockets()} == {os.getpid()}
