"""Random scripts for state machines, played on our engine and on a real gen_statem.

Run as a program, it records what gen_statem does:  python -m tests.oracle.machines   (needs `erl` and `erlc`)
"""

import json
import random
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlld_sdk.actors.statem.engine import (
    EVENT_TIMEOUT,
    STATE_TIMEOUT,
    Action,
    CancelTimer,
    Goto,
    Happening,
    Keep,
    Machine,
    NextEvent,
    Outcome,
    Postpone,
    Repeat,
    SetTimer,
    TimerKey,
    UpdateTimer,
    arrive,
    enters,
    pull,
    settle,
)

HERE = Path(__file__).parent
RECORDED = HERE / "machines.json"
SEED, SCRIPTS = 20_240_229, 300
LONG = 3_600
"""Seconds: a timer that does not fire while a script runs."""


@dataclass(frozen=True)
class Event:
    """One event: what it is called, what it leads to, and the actions, each as a tuple of plain values."""

    id: int
    outcome: str
    actions: tuple[tuple, ...] = ()


def available() -> bool:
    return bool(shutil.which("erl") and shutil.which("erlc"))


def scripts() -> list[list[Event]]:
    """Make the scripts: the same ones every time."""
    chance = random.Random(SEED)
    return [_script(chance) for _ in range(SCRIPTS)]


def _script(chance: random.Random) -> list[Event]:
    numbers = iter(range(1, 10_000))
    return [_event(chance, numbers, depth=0) for _ in range(chance.randint(2, 8))]


def _event(chance: random.Random, numbers, depth: int) -> Event:
    outcome = chance.choice(["keep", "keep", "repeat", "goto a", "goto b", "goto c"])
    actions: list[tuple] = []
    # Two events that postpone themselves and change the state would wake each other for ever.
    if outcome == "keep" and depth == 0 and chance.random() < 0.5:
        actions.append(("postpone",))
    for _ in range(chance.choice([0, 0, 1, 2, 3])):
        kind = chance.choice(["set", "set", "cancel", "update", "insert"])
        timer = chance.choice(["state_timeout", "event_timeout", "n1", "n2"])
        if kind == "insert":
            # What is postponed is handled again: it must not insert more each time.
            if depth < 2 and ("postpone",) not in actions:
                actions.append(("insert", _event(chance, numbers, depth + 1)))
        elif kind == "set":
            actions.append(("set", timer, chance.choice([0, 0, LONG]), next(numbers)))
        elif kind == "cancel":
            actions.append(("cancel", timer))
        else:
            actions.append(("update", timer, next(numbers)))
    return Event(next(numbers), outcome, tuple(actions))


# -- on the engine


def play_engine(script: list[Event]) -> list[str]:
    log: list[str] = ["enter a a"]
    machine = Machine("a")
    for event in script:
        machine = _turn(machine, Happening("cast", event), log)
        while True:
            machine, queued = pull(machine)
            if queued is None:
                break
            machine = _turn(machine, queued, log)
    return log


def _turn(machine: Machine, event: Happening, log: list[str]) -> Machine:
    machine, _ = arrive(machine)
    outcome: Outcome = Keep()
    if event.timer is not None:
        name = f"timeout {event.timer.name}" if event.timer.kind == "timeout" else event.timer.kind
        log.append(f"{machine.state} {name} {event.content}")
    else:
        asked = event.content
        assert isinstance(asked, Event)
        log.append(f"{machine.state} {event.kind} {asked.id}")
        actions = tuple(_action(action) for action in asked.actions)
        kind, _, target = asked.outcome.partition(" ")
        outcome = {"keep": Keep, "repeat": Repeat}[kind](actions) if not target else Goto(target, actions)
    entered = enters(machine, outcome)
    if entered is not None:
        log.append(f"enter {machine.state} {entered}")
    return settle(machine, event, outcome)[0]


def _key(timer: str) -> TimerKey:
    return {"state_timeout": STATE_TIMEOUT, "event_timeout": EVENT_TIMEOUT}.get(timer) or TimerKey("timeout", timer)


def _action(action: tuple) -> Action:
    match action:
        case ("postpone",):
            return Postpone()
        case ("insert", event):
            return NextEvent(event)
        case ("set", timer, delay, content):
            return SetTimer(_key(timer), delay, content)
        case ("cancel", timer):
            return CancelTimer(_key(timer))
        case ("update", timer, content):
            return UpdateTimer(_key(timer), content)
    raise ValueError(action)


# -- on gen_statem


def play_erlang(played: list[list[Event]]) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["erlc", "-o", folder, str(HERE / "machines.erl")], check=True, timeout=60)
        terms = ",\n".join("[" + ",".join(map(_term, script)) + "]" for script in played)
        Path(folder, "scripts.terms").write_text(f"[{terms}].\n")
        done = subprocess.run(
            ["erl", "-noshell", "-s", "machines", "main", "scripts.terms", "-s", "init", "stop"],
            cwd=folder,
            check=True,
            timeout=120,
            capture_output=True,
            text=True,
        )
    return [line.split(",") for line in done.stdout.splitlines()]


def _term(event: Event) -> str:
    kind, _, target = event.outcome.partition(" ")
    outcome = f"{{goto,{target}}}" if target else kind
    return f"{{ev,{event.id},{outcome},[{','.join(map(_action_term, event.actions))}]}}"


def _action_term(action: tuple) -> str:
    timers = {"state_timeout": "state_timeout", "event_timeout": "timeout"}
    match action:
        case ("postpone",):
            return "postpone"
        case ("insert", event):
            return f"{{next_event,internal,{_term(event)}}}"
        case (kind, timer, *rest):
            key = timers.get(timer, f"{{timeout,{timer}}}")
            if kind == "cancel":
                return f"{{{key},cancel}}"
            if kind == "update":
                return f"{{{key},update,{rest[0]}}}"
            return f"{{{key},{rest[0] * 1000},{rest[1]}}}"
    raise ValueError(action)


def recorded() -> list[list[str]]:
    found: list[list[str]] = json.loads(RECORDED.read_text())
    return found


if __name__ == "__main__":
    traces = play_erlang(scripts())
    RECORDED.write_text("[\n" + ",\n".join(json.dumps(trace) for trace in traces) + "\n]\n")
    print(len(traces), "traces recorded")
