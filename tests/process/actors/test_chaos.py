"""Everything that can be done to actors, by several threads at once, under the shortest switch interval."""

import asyncio
import os
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.directives import IGNORE, Stop
from mlld_sdk.actors.core.errors import (
    ActorCrashed,
    ActorDead,
    AskTimeout,
    DeadlockDetected,
    StartFailed,
    StartIgnored,
)
from mlld_sdk.actors.core.exits import SHUTDOWN, Other
from mlld_sdk.actors.core.system import ActorSystem

EXPECTED = (ActorDead, StartFailed, StartIgnored, AskTimeout, ActorCrashed, DeadlockDetected)


@pytest.fixture
def _shortest_switch_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Plain(Actor):
    def __init__(self, trap: bool, luck: float) -> None:
        self.trap_exit = trap
        self.luck = luck

    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else message


class BadStart(Plain):
    def on_start(self) -> Any:
        if self.luck < 0.1:
            raise ValueError
        if self.luck < 0.3:
            return IGNORE if self.luck < 0.2 else Stop(Other("no"))
        return None


class BadEnd(Plain):
    def on_terminate(self, reason: Any) -> None:
        if self.luck < 0.2:
            raise KeyError


class Async(Plain):
    async def on_start(self) -> None:
        await asyncio.sleep(0)

    async def on_receive(self, message: Any) -> Any:
        await asyncio.sleep(0)
        return super().on_receive(message)

    async def on_terminate(self, reason: Any) -> None:
        await asyncio.sleep(0)


class Inline(BadStart):
    caller_runs = True


class Own(BadStart):
    threaded = True


KINDS = [Plain, BadStart, BadEnd, Async, Inline, Plain, BadStart, BadEnd, Own]


class Chaos:
    """Does things to actors of one system, and keeps count of what every one of them told its monitor."""

    def __init__(self, system: ActorSystem) -> None:
        self.system = system
        self.refs: list[Any] = []
        self.told: list[list[Any]] = []

    def run(self, seed: int, steps: int) -> None:
        chance = random.Random(seed)
        for _ in range(steps):
            try:
                if chance.random() < 0.35 or not self.refs:
                    self.start(chance)
                else:
                    self.disturb(chance, chance.choice(self.refs[-30:]), chance.choice(self.refs[-30:]))
            except EXPECTED:
                continue

    def start(self, chance: random.Random) -> None:
        parent = chance.choice(self.refs[-20:]) if self.refs and chance.random() < 0.4 else None
        name = f"name-{chance.randrange(20)}" if chance.random() < 0.5 else None
        kind, args = chance.choice(KINDS), (chance.random() < 0.5, chance.random())
        ref = self.system.start(kind, args, name=name, parent=parent, timeout=30)
        self.refs.append(ref)
        downs: list[Any] = []
        self.told.append(downs)
        ref.monitor(downs.append)
        if chance.random() < 0.3:
            self.system.send_after(chance.random() * 0.01, ref, "tick")

    def disturb(self, chance: random.Random, ref: Any, other: Any) -> None:
        actions = [
            ref.kill,
            lambda: ref.stop(block=False),
            lambda: ref.exit("bad"),
            lambda: ref.cell.retire(SHUTDOWN),
            lambda: ref.shutdown(chance.choice([0, 0.001, 5])),
            lambda: ref.tell(lambda me: 1 / 0),
            lambda: ref.tell(lambda me: me.link(other)),
            lambda: ref.tell(lambda me: me.monitor(other)),
            lambda: ref.tell(lambda me: other.cast("hello")),
            lambda: ref.tell(lambda me: me.start_link(Plain, True, 1.0)),
            lambda: ref.call("x", timeout=60),
            lambda: ref.request("y").cancel(),
            lambda: (ref.suspend(1), ref.resume(1)),
            ref.info,
        ]
        chance.choice(actions)()


@pytest.mark.usefixtures("_shortest_switch_interval")
def test_after_any_chaos_every_end_was_told_once_and_nothing_is_left() -> None:  # LNK-2, GEN-18, T-6, T-9
    with ActorSystem("chaos", workers=2) as system:
        chaos = Chaos(system)
        threads = [threading.Thread(target=chaos.run, args=(seed, 1_500)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report = system.stop(20)
    assert report.clean, report
    assert len(system) == 0
    assert system.directory.names.all() == {}
    assert len(system.timers) == 0
    assert {len(downs) for downs in chaos.told} == {1}
    for ref in chaos.refs:
        assert (ref.cell.links, ref.cell.monitors, ref.cell.mailbox.queued()) == (None, None, (0, 0))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_twenty_thousand_linked_actors_need_few_threads_and_little_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    count = 20_000
    with ActorSystem("many") as system:
        parent = system.start(Plain, (True, 1.0))
        before, threads = resident(), threading.active_count()
        refs = parent.call(lambda me: [me.start_link(Plain, False, 1.0) for _ in range(count)], timeout=60)
        assert threading.active_count() <= threads + 3
        assert (resident() - before) / count < 3_000
        assert [ref.call(7, timeout=60) for ref in refs[::1_000]] == [7] * 20
        parent.stop(timeout=60)
        for ref in refs[::100]:
            ref.join(60)
