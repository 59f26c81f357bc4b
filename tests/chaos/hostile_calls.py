"""Callers of engines that misbehave: every call has one outcome, its own, and nothing stays behind.

    python -m tests.chaos.hostile_calls SECONDS SEED

Prints what it found as one JSON object.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from typing import Any

from mlld_sdk.base.errors import MlldError
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import (
    CallTimeout,
)
from mlld_sdk.transport.limits import EngineLimits
from mlld_sdk.transport.reactor import shared_reactor
from tests.support.engines import HABITS, KNOWN, do, hostile, open_descriptors, ours
from tests.support.eventually import eventually

LIMITS = EngineLimits(cancel_grace=0.05, term_grace=0.05, in_flight=64)
LONGEST = 3.0


def requests(token: str, chance: random.Random) -> list[dict[str, Any]]:
    """List what a caller may ask for; only the first three are answered, each with the token."""
    answer = ("answer", {"output": token})
    return [
        do(answer),
        do(("events", chance.randrange(500)), answer),
        do(("print", "null\n42\n"), ("spawn", "session"), answer),
        do(("answer-as", chance.randrange(20)), "hang"),
        do(("bytes", "ff00fe0a"), "hang"),
        do(("fail", "RUNTIME_ERROR", "on purpose")),
        do(("warn", "words\n", 1000), "hang"),
        do(("spawn", "group"), ("block", 0.05), "hang"),
        do(("exit", 1)),
        do(("signal", signal.SIGKILL)),
        do("close-output"),
    ]


class Callers:
    """Calls, and counts what comes of it."""

    def __init__(self, seconds: float, seed: str) -> None:
        self.until = time.monotonic() + seconds
        self.seed = seed
        self.lock = threading.Lock()
        self.tried: Counter[str] = Counter()
        self.found: dict[str, list[str]] = {"lost": [], "doubled": [], "wrong": []}
        self.slowest = 0.0

    def say(self, word: str, what: str) -> None:
        with self.lock:
            self.found[word].append(what)

    def work(self, number: int) -> None:
        chance, turn = random.Random(f"{self.seed}/{number}"), 0
        while time.monotonic() < self.until:
            turn += 1
            self.one_engine(chance, f"{number}.{turn}")

    def one_engine(self, chance: random.Random, name: str) -> None:
        habits = chance.choice(HABITS)
        engine = Engine.start(hostile(*habits), exclusive=chance.random() < 0.5, limits=LIMITS)
        self.count("engines")
        open_calls: list[tuple[Any, str, float, list[float]]] = []
        for n in range(chance.randrange(1, 8)):
            token = f"{name}.{n}"
            outcomes: list[float] = []
            asked, patience = chance.choice(requests(token, chance)), chance.choice([0.2, 1, LONGEST])
            try:
                call = engine.submit("process", asked, timeout=patience)
            except MlldError:
                break
            call.add_done_callback(lambda _, outcomes=outcomes: outcomes.append(time.monotonic()))
            open_calls.append((call, token, time.monotonic(), outcomes))
            self.count("calls")
            if chance.random() < 0.2:
                call.cancel()
            if chance.random() < 0.1:
                os.kill(engine.pid, signal.SIGSTOP)
                self.count("stops")
        if chance.random() < 0.4:
            os.kill(engine.pid, signal.SIGKILL)
            self.count("kills")
        for call, token, _, _ in open_calls:
            self.look(call, f"call {token} to an engine that is {', '.join(habits) or 'plain'}", token)
        engine.kill() if chance.random() < 0.5 else engine.close(0.2)
        if not engine.wait(60):
            self.say("wrong", f"engine {name} does not end")
        for _, token, since, outcomes in open_calls:
            if len(outcomes) > 1:
                self.say("doubled", f"call {token} had {len(outcomes)} outcomes")
            with self.lock:
                self.slowest = max(self.slowest, *(at - since for at in outcomes), 0.0)

    def look(self, call: Any, name: str, token: str) -> None:
        try:
            error = call.exception(60)
        except CallTimeout as late:
            error = late
        if not call.done():
            self.say("lost", f"{name} has no outcome")
        elif error is not None and not isinstance(error, KNOWN):
            self.say("wrong", f"{name}: {error!r}")
        elif error is None and call.result(0).payload != {"output": token}:
            self.say("wrong", f"{name}: {call.result(0)!r:.200}")

    def count(self, what: str) -> None:
        with self.lock:
            self.tried[what] += 1


def main() -> None:
    callers = Callers(float(sys.argv[1]), sys.argv[2])
    shared_reactor()
    before = open_descriptors()
    threads = [threading.Thread(target=callers.work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(callers.until - time.monotonic() + 200)
    if any(thread.is_alive() for thread in threads):
        callers.say("lost", "a caller does not come back")
    try:
        eventually(lambda: not ours())
    except AssertionError:
        callers.say("wrong", f"processes are left behind: {ours()}")
    if (left := open_descriptors() - before) > 0:
        callers.say("wrong", f"{left} files are left open")
    print(json.dumps({"tried": callers.tried, "slowest": callers.slowest, **callers.found}), flush=True)


if __name__ == "__main__":
    main()
