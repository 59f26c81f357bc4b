"""Asks racing stops, kills and overflow under the shortest thread switch interval: no reply is lost. T-10, T-13."""

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from mlld_sdk.actors.core.actor import Actor
from mlld_sdk.actors.core.errors import ActorDead, AskTimeout, MailboxFull
from mlld_sdk.actors.core.system import ActorSystem

SLOTS = 16
ASKERS = 8


class Echo(Actor):
    def on_receive(self, message: Any) -> Any:
        return message


KINDS = [
    Echo,
    *(
        type(f"Echo_{overflow}", (Echo,), {"mailbox_limit": 50, "overflow": overflow, "overflow_timeout": 0.01})
        for overflow in ("refuse", "drop_oldest", "drop_newest", "block")
    ),
    type("EchoInline", (Echo,), {"caller_runs": True}),
    type("EchoThreaded", (Echo,), {"threaded": True}),
]


@pytest.fixture(autouse=True)
def shortest_switch_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def race(asks: int, seed: int) -> Counter[str]:
    """Ask many actors from many threads while they are stopped, killed and replaced; count the outcomes."""
    outcomes: Counter[str] = Counter()
    with ActorSystem("stress", workers=2) as system:
        slots = [system.start(random.Random(seed + slot).choice(KINDS)) for slot in range(SLOTS)]
        asked: list[list[tuple[int, Any]]] = [[] for _ in range(ASKERS)]
        over = threading.Event()

        def ask(number: int) -> None:
            chance = random.Random(seed * 100 + number)
            for count in range(asks // ASKERS):
                ref = slots[chance.randrange(SLOTS)]
                if chance.random() < 0.01:
                    try:
                        ref.call(count, timeout=chance.choice([30, 0.0001]))
                    except (ActorDead, MailboxFull, AskTimeout) as outcome:
                        outcomes[type(outcome).__name__] += 1
                asked[number].append((count, ref.ask(count, block=False)))

        def end_and_replace() -> None:
            chance = random.Random(seed)
            while not over.is_set():
                slot = chance.randrange(SLOTS)
                slots[slot].kill() if chance.random() < 0.5 else slots[slot].stop(block=False)
                slots[slot] = system.start(chance.choice(KINDS))
                time.sleep(0.0005)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(ASKERS)]
        ending = threading.Thread(target=end_and_replace)
        for thread in [*threads, ending]:
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        ending.join()
        for pairs in asked:
            for count, future in pairs:
                try:
                    outcomes["right" if future.get(timeout=60) == count else "wrong"] += 1
                except AskTimeout:
                    outcomes["lost"] += 1
                except (ActorDead, MailboxFull) as refused:
                    outcomes[type(refused).__name__] += 1
    return outcomes


def test_no_reply_is_lost_in_a_race_with_stops_kills_and_overflow() -> None:  # T-10
    outcomes = race(40_000, seed=1)
    assert (outcomes["lost"], outcomes["wrong"]) == (0, 0), outcomes
    assert outcomes["right"] > 10_000
    assert outcomes["ActorDead"] > 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_reply_is_lost_among_a_million() -> None:  # T-10
    outcomes = race(1_000_000, seed=2)
    assert (outcomes["lost"], outcomes["wrong"]) == (0, 0), outcomes


def test_a_busy_neighbour_does_not_make_orderly_ends_look_like_stuck_ones() -> None:  # T-13
    over = threading.Event()

    class Burner(Actor):
        def on_receive(self, message: Any) -> Any:
            while not over.is_set():
                sum(range(100))

    with ActorSystem("busy", workers=1) as system:
        for _ in range(3):
            system.start(Burner).tell("burn")
        ends = [system.start(Echo).shutdown(5.0) for _ in range(50)]
        assert {str(end.get(timeout=60)) for end in ends} == {"shutdown"}
        over.set()
