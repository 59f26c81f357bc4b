"""What an engine writes becomes messages, noise is kept apart, and what is no line any more ends the engine."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mlld_sdk.base.env import Env
from mlld_sdk.base.events import Event
from mlld_sdk.transport.channel import Channel
from mlld_sdk.transport.core import EngineCore
from mlld_sdk.transport.events import EngineCallbackFailed, EnginePolluted
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.wire import Decoded


class Bench:
    """A channel whose engine is this test."""

    def __init__(self) -> None:
        (answers, self.answers), (words, self.words) = os.pipe(), os.pipe()
        os.set_blocking(answers, False)
        os.set_blocking(words, False)
        self.fds = [answers, words]
        self.told: list[Event] = []
        self.heard: list[Decoded] = []
        self.forgotten: list[int] = []
        self.killed = 0
        self.core = EngineCore(
            cast("Any", SimpleNamespace(pid=1, answers=answers, words=words)),
            "live-1",
            EngineLimits(line_bytes=100, noise_lines=2, stderr_bytes=6),
            cast("Any", SimpleNamespace(forget=self.forgotten.append)),
            Env(),
            self.told.append,
            exclusive=False,
        )
        self.core.end = cast("Any", SimpleNamespace(kill=self.kill))
        self.channel = Channel(self.core, cast("Any", None), route=self.route)

    def kill(self) -> None:
        self.killed += 1

    def route(self, decoded: Decoded) -> None:
        if b"stumble" in b"".join(decoded.lines):
            raise KeyError("mine")
        self.heard.append(decoded)

    def write(self, data: bytes) -> None:
        os.write(self.answers, data)
        self.channel.read()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for fd in (*bench.fds, bench.answers, bench.words):
        if fd >= 0:
            os.close(fd)


def test_pieces_become_messages(bench: Bench) -> None:
    bench.write(b'{"result":')
    assert not bench.heard
    assert not bench.core.heard
    bench.write(b'{"id":1}}\n')
    assert [decoded.lines for decoded in bench.heard] == [[b'{"result":{"id":1}}']]
    assert bench.core.heard
    bench.channel.read()  # there is nothing now, which is no end
    assert not bench.channel.is_at_end


def test_noise_is_counted_and_the_last_of_it_kept_and_the_first_told(bench: Bench) -> None:
    bench.write(b"one\ntwo\nthree\n")
    assert (bench.core.stats.noise_lines, list(bench.channel.noise)) == (3, [b"two", b"three"])
    assert [event.line for event in bench.told if isinstance(event, EnginePolluted)] == ["one"]
    assert not bench.core.heard


def test_a_line_beyond_the_limit_and_a_defect_of_this_side_end_the_engine(bench: Bench) -> None:
    bench.write(b"x" * 101)
    assert (bench.killed, bench.core.fatal) == (1, "a line of more than 100 bytes")
    bench.write(b'{"result":{"id":1,"value":"stumble"}}\n')
    assert bench.killed == 2
    assert [event.where for event in bench.told if isinstance(event, EngineCallbackFailed)] == ["reading"]


def test_the_end_is_noted_and_what_is_left_is_read_without_its_newline(bench: Bench) -> None:
    os.write(bench.answers, b'{"result":{"id":2}}')
    os.write(bench.words, b"last words")
    bench.channel.drain()
    assert bench.heard[-1].lines == [b'{"result":{"id":2}}']
    assert bench.core.stderr.text == " words"
    os.close(bench.answers)
    bench.answers = -1
    bench.channel.read()
    assert bench.channel.is_at_end
    assert bench.forgotten == [bench.core.child.answers]
