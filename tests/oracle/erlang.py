"""Plays the scenarios on a real Erlang. Run as a program, it records the traces the other tests compare with.

python -m tests.oracle.erlang        (needs `erl` and `erlc` on the PATH)
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.oracle.scenarios import SCENARIOS, Scenario

HERE = Path(__file__).parent
RECORDED = HERE / "recorded.json"

Trace = list[Any]


def available() -> bool:
    return bool(shutil.which("erl") and shutil.which("erlc"))


def term(value: Any) -> str:
    """Write a value as an Erlang term: texts are atoms."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return f"'{value}'"
        case dict():
            return "#{" + ",".join(f"'{key}' => {_field(key, one)}" for key, one in value.items()) + "}"
        case tuple() | list():
            return "[" + ",".join(term(one) for one in value) + "]"
    raise TypeError(value)


def _field(key: str, value: Any) -> str:
    if key == "stop" and value == "shutdown_x":
        return "{shutdown,x}"
    if key == "steps":
        return "[" + ",".join(_step(one) for one in value) + "]"
    return term(value)


def _step(step: tuple[Any, ...]) -> str:
    kind, *rest = step
    parts = [term(kind)]
    for one in rest:
        if kind == "die_together" and isinstance(one, tuple):
            parts.append("[" + ",".join("{" + f"{term(child)},{_reason(why)}" + "}" for child, why in one) + "]")
        elif kind in ("exit", "stranger_exit", "parent_exit") and one is rest[-1]:
            parts.append(_reason(one))
        elif kind == "hanging":
            parts.append(one)
        else:
            parts.append(term(one))
    return "{" + ",".join(parts) + "}"


def _reason(word: str) -> str:
    return "{shutdown,x}" if word == "shutdown_x" else term(word)


def play(scenarios: list[Scenario]) -> dict[str, Trace]:
    """Run the scenarios, all at once, and collect their traces."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["erlc", "-o", folder, str(HERE / "oracle.erl")], check=True, timeout=60)
        Path(folder, "scenarios.terms").write_text(term_list(scenarios))
        done = subprocess.run(
            ["erl", "-noshell", "-s", "oracle", "main", "scenarios.terms", "-s", "init", "stop"],
            cwd=folder,
            check=True,
            timeout=120,
            capture_output=True,
            text=True,
        )
    return dict(json.loads(line) for line in done.stdout.splitlines())


def term_list(scenarios: list[Scenario]) -> str:
    return "[" + ",\n".join(term(one) for one in scenarios) + "].\n"


def recorded() -> dict[str, Trace]:
    """Read the traces recorded from a real Erlang."""
    found: dict[str, Trace] = json.loads(RECORDED.read_text())["traces"]
    return found


def record() -> None:
    release = subprocess.run(
        ["erl", "-noshell", "-eval", 'io:format("~s", [erlang:system_info(otp_release)]), halt().'],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    traces = play(SCENARIOS)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(trace)}" for name, trace in sorted(traces.items()))
    RECORDED.write_text(f'{{"otp": "{release}", "traces": {{\n{lines}\n}}}}\n')
    print(len(traces), "traces recorded from OTP", release)


if __name__ == "__main__":
    record()
