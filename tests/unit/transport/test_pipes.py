"""Lines out of pieces, lines into a pipe that is full, and the thread that watches."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlld_sdk.base.env import Env
from mlld_sdk.transport.pipes import LineBuffer, LineTooLong, Outgoing, Tail
from mlld_sdk.transport.reactor import Reactor
from tests.support.eventually import eventually


@given(st.binary(max_size=300), st.lists(st.integers(1, 20), max_size=60))
def test_however_a_stream_is_cut_its_lines_come_out_whole(stream: bytes, cuts: list[int]) -> None:
    buffer, out, at = LineBuffer(10_000), b"", 0
    for size in [*cuts, len(stream)]:
        block = buffer.feed(stream[at : at + size]) if stream[at : at + size] else None
        assert block is None or block.endswith(b"\n")
        out += block or b""
        at += size
    assert out == stream[: stream.rfind(b"\n") + 1]
    assert buffer.rest() == stream[stream.rfind(b"\n") + 1 :]


def test_a_line_that_never_ends_is_given_up() -> None:  # T-34
    buffer = LineBuffer(1000)
    for _ in range(10):
        buffer.feed(b"x" * 100)
    with pytest.raises(LineTooLong):
        buffer.feed(b"x")


def test_a_tail_keeps_the_end_and_no_more() -> None:  # T-34
    tail = Tail(10)
    for number in range(1000):
        tail.feed(b"%d," % number)
    assert tail.text == "7,998,999,"
    tail.feed("ä".encode() * 50)
    assert len(tail.text) <= 10
    nothing = Tail(0)
    nothing.feed(b"x")
    assert nothing.text == ""


@pytest.fixture(params=[False, True], ids=["native", "portable"])
def reactor(request: pytest.FixtureRequest) -> Iterator[Reactor]:
    reactor = Reactor(name="test-io", portable=request.param)
    yield reactor
    reactor.close()


def test_a_full_pipe_holds_lines_back_in_order_and_lets_untouched_ones_be_withdrawn(reactor: Reactor) -> None:  # T-16
    read, write = os.pipe()
    os.set_blocking(write, False)
    out = Outgoing(write, reactor, lambda: None)
    lines = [b"%d:" % n + b"x" * 50_000 + b"\n" for n in range(20)]
    for line in lines:
        out.send(line, patient=False)
    assert out.backlog > 500_000
    assert not out.withdraw(lines[0])
    assert out.withdraw(lines[10])
    assert not out.withdraw(lines[10])
    kept = b"".join(lines[:10] + lines[11:])
    got = b""
    while len(got) < len(kept):
        got += os.read(read, 65536)
    assert got == kept
    eventually(lambda: out.backlog == 0)
    out.close()
    assert os.read(read, 1) == b""
    os.close(read)


def test_patient_lines_of_many_threads_all_arrive(reactor: Reactor) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    out = Outgoing(write, reactor, lambda: None)

    def send(thread: int) -> None:
        for number in range(500):
            out.send(b"%d:%d\n" % (thread, number), patient=number % 3 > 0)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    got = b""
    while got.count(b"\n") < 2000:
        got += os.read(read, 65536)
    for thread in threads:
        thread.join()
    for number in range(4):
        mine = [line for line in got.split(b"\n") if line.startswith(b"%d:" % number)]
        assert mine == [b"%d:%d" % (number, turn) for turn in range(500)]
    out.close()
    os.close(read)


def test_a_broken_pipe_is_told_and_takes_no_more(reactor: Reactor) -> None:
    read, write = os.pipe()
    broken: list[int] = []
    out = Outgoing(write, reactor, lambda: broken.append(1))
    os.close(read)
    out.send(b"x\n", patient=False)
    assert broken == [1]
    assert out.backlog == 0
    out.close()
    out.send(b"x\n", patient=False)


def test_timers_fire_in_order_and_cancelled_ones_do_not(reactor: Reactor) -> None:
    fired: list[int] = []
    done = threading.Event()
    now = reactor.env.now()
    reactor.call_at(now + 0.06, done.set)
    for number in (3, 1, 2):
        reactor.call_at(now + number / 100, lambda number=number: fired.append(number))
    reactor.call_at(now + 0.02, lambda: fired.append(99)).cancel()
    assert done.wait(60)
    assert fired == [1, 2, 3]


def test_cancelled_timers_do_not_pile_up(reactor: Reactor) -> None:
    for _ in range(10_000):
        reactor.call_at(reactor.env.now() + 3600, lambda: None).cancel()
    assert len(reactor._timers) < 1000


def test_time_is_the_environments(reactor: Reactor) -> None:
    clock = [100.0]
    slow = Reactor(name="test-io-2", env=Env(now=lambda: clock[0]))
    try:
        fired = threading.Event()
        slow.call_at(160.0, fired.set)
        slow.call_soon(lambda: None)
        assert not fired.is_set()
        clock[0] = 161.0
        slow.call_soon(lambda: None)
        assert fired.wait(60)
    finally:
        slow.close()


def test_one_functions_trouble_is_reported_and_the_thread_goes_on(
    reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    done = threading.Event()
    reactor.call_soon(lambda: 1 / 0)
    reactor.call_soon(done.set)
    assert done.wait(60)
    assert reported == [ZeroDivisionError]


def test_an_idle_reactor_sleeps(reactor: Reactor) -> None:
    reactor.call_soon(lambda: None)
    eventually(lambda: not reactor.awake)
    before = time.process_time()
    threading.Event().wait(0.2)
    assert time.process_time() - before < 0.15


class Meddled(deque[bytes | memoryview]):
    """A queue during whose every change another thread gets a turn."""

    other = staticmethod(lambda: None)

    def remove(self, line: bytes | memoryview) -> None:
        self.other()
        super().remove(line)

    def append(self, line: bytes | memoryview) -> None:
        super().append(line)
        self.other()

    def popleft(self) -> bytes | memoryview:
        line = super().popleft()
        self.other()
        return line


@pytest.fixture
def meddled(reactor: Reactor) -> Iterator[tuple[Outgoing, Meddled, int]]:
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.set_blocking(read, False)
    out = Outgoing(write, reactor, lambda: None)
    out._queue = queue = Meddled()
    yield out, queue, read
    out.close()
    os.close(read)


def only_once(function: Callable[[], object]) -> Callable[[], None]:
    turns = [function]
    return lambda: turns.pop()() if turns else None


def test_a_line_sent_while_another_is_withdrawn_is_not_left_behind(meddled: tuple[Outgoing, Meddled, int]) -> None:
    out, queue, read = meddled
    queue.other = only_once(lambda: out.send(b"new\n", patient=False))
    assert not out.withdraw(b"old\n")
    assert os.read(read, 100) == b"new\n"


def test_a_line_sent_while_the_pipe_opens_again_is_not_left_behind(
    meddled: tuple[Outgoing, Meddled, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _, read = meddled
    out.send(b"x" * 100_000, patient=False)
    write_all, late, got = Outgoing._write_all, only_once(lambda: out.send(b"late\n", patient=False)), b""

    def written_when_another_comes(out: Outgoing) -> None:
        write_all(out)
        if not out._blocked:
            late()

    monkeypatch.setattr(Outgoing, "_write_all", written_when_another_comes)

    def all_there() -> bool:
        nonlocal got
        with suppress(BlockingIOError):
            got += os.read(read, 65536)
        return got.endswith(b"late\n")

    eventually(all_there, within=5)


def test_what_another_thread_has_written_already_is_not_counted_as_waiting(
    meddled: tuple[Outgoing, Meddled, int],
) -> None:  # T-34
    out, queue, read = meddled
    queue.other = only_once(out.flush)
    out.send(b"line\n", patient=True)
    assert os.read(read, 100) == b"line\n"
    assert out.backlog == 0
