"""What comes from engines, scripts, exceptions and names is shown by the command line, and no terminal obeys it."""

import io
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Runtime, child, one_for_one
from mlld_sdk.cli.main import main
from mlld_sdk.telemetry.log import log_events, stderr_logger
from tests.support.command_line import command_line
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[3]

EVIL = "\x1b[2J\x1b]0;owned\x07 \r\x9b31m \u202eknilb \u2066\ufeff\nHEALTHY   1 healthy\n12:00:00.000  info  all well"

ENGINE = f"""#!{sys.executable} -S
import json, os, sys
EVIL = {EVIL!r}
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "hello":
        answer = {{"error": {{"code": "METHOD_NOT_FOUND", "message": "no"}}}}
    elif asked["params"].get("script", "").startswith("die"):
        os.write(2, ("boot " + EVIL + "\\n").encode())
        os._exit(1)
    elif asked["params"].get("script", "").startswith("fail"):
        answer = {{"error": {{"code": "X" + EVIL.split()[0], "message": "said " + EVIL}}}}
    else:
        answer = {{"output": "first\\n" + EVIL, "effects": [], "exports": [], "stateWrites": []}}
    print(json.dumps({{"result": {{"id": asked["id"], **answer}}}}), flush=True)
"""


class Worker(Agent):
    """Does what its payload says, and fails as evilly as it can."""

    engine = "live"
    concurrency = 1

    def run(self, job: Any, payload: Any) -> Any:
        if payload == "raise":
            raise ValueError(f"bad {EVIL}")
        if payload == "return":
            return EVIL
        return job.process(payload, idempotent=False)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    monkeypatch.setenv("MLLD_OTP_RUNTIME_DIR", str(tmp_path / "rt"))
    engine = tmp_path / "engine.py"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    tree = one_for_one(
        child(Worker, name="worker", command=str(engine)),
        child(Worker, name=f"named {EVIL}".replace("/", ""), command=str(engine)),
        max_restarts=100,
    )
    with Runtime(tree, store=tmp_path / "s.db", control=True) as runtime:
        yield runtime


def tame(said: str, *, lines: bool = False) -> str:
    """Check that a terminal shows every character of a text, and that no line is a smuggled one, unless it may be."""
    for at in said:
        assert at in "\n\t" or unicodedata.category(at) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), repr(said)
    for line in said.splitlines():
        assert lines or not line.startswith(("HEALTHY   1 healthy", "12:00:00.000")), said
    return said


def ended(runtime: Runtime, payload: str) -> Any:
    run = runtime.agent("worker").run(payload)
    eventually(lambda: run.state in ("failed", "parked", "finished"))
    return run


def test_nothing_that_a_command_prints_steers_a_terminal_or_passes_for_another_line(
    runtime: Runtime, tmp_path: Path
) -> None:
    runs = [ended(runtime, payload).id for payload in ("fail", "raise", "return", "die")]
    eventually(lambda: runtime.history.crashes())
    crash = runtime.history.crashes()[0]
    commands: list[tuple[str, ...]] = [
        ("tree",),
        ("top",),
        ("crashes",),
        ("why", "worker"),
        ("why", crash.crash_id),
        ("events", "--limit", "500"),
        ("runs", "ls"),
        *(("runs", "show", run) for run in runs),
        ("pause", "worker", "--reason", EVIL),
        ("tree",),
        ("why", "worker"),
        ("events", "--limit", "5"),
        ("resume", "worker"),
    ]
    said = {}
    for words in commands:
        done = command_line(tmp_path, *words)
        assert done.status in (0, 3), done.err
        said[words] = tame(done.out) + tame(done.err)
    assert "| boot \\u001b[2J\\u001b]0;owned\\u0007" in said["why", crash.crash_id]
    assert "\\u202eknilb" in said["runs", "show", runs[0]]
    assert "X\\u001b[2J" in said["runs", "show", runs[0]]
    assert 'raise ValueError(f"bad {EVIL}")' in said["runs", "show", runs[1]]
    assert json.dumps(EVIL)[1:20] in said["runs", "show", runs[2]]
    assert "named \\u001b[2J" in said["tree",]


def test_what_fails_and_what_has_lines_is_shown_as_tamely(runtime: Runtime, tmp_path: Path) -> None:
    done = command_line(tmp_path, "evaluate", "worker", "fail")
    assert done.status == 1
    assert "mlld-otp: said \\u001b[2J" in tame(done.err)
    assert "\n  HEALTHY   1 healthy\n" in done.err  # a line of the message, which can be seen to be one
    for words in (("why", EVIL), ("runs", "show", EVIL), ("pause", EVIL), ("evaluate", EVIL, "x")):
        done = command_line(tmp_path, *words)
        assert done.status == 1
        tame(done.err)
    done = command_line(tmp_path, "evaluate", "worker", "show")
    assert tame(done.out, lines=True).startswith("first\n\\u001b[2J")


def test_json_says_the_same_and_steers_nothing_either(runtime: Runtime, tmp_path: Path) -> None:
    run = ended(runtime, "fail").id
    for words in (("tree",), ("events", "--limit", "500"), ("runs", "ls"), ("runs", "show", run)):
        done = command_line(tmp_path, *words, "--json")
        for line in tame(done.out).splitlines():
            json.loads(line)
    shown = json.loads(command_line(tmp_path, "runs", "show", run, "--json").out)
    assert EVIL in shown["outcome"]["error"]["message"]


def test_the_shell_and_the_plain_log_are_tame(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_events(runtime.bus, stderr_logger())
    ended(runtime, "fail")
    ended(runtime, "die")
    monkeypatch.setattr(sys, "stdin", io.StringIO("worker> show\nworker> fail\nwhy worker\nnonsense '\x1b[31m\n"))
    assert main(["shell"]) == 0
    said = capsys.readouterr()
    assert "first" in tame(said.out, lines=True)
    assert "X\\u001b[2J" in tame(said.err)  # from the log
    assert "mlld-otp: said \\u001b[2J" in said.err
    assert "engine.exited" in said.err


def test_a_service_logs_no_word_of_an_engine_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(
        "from mlld_sdk import Agent, child, one_for_one\n"
        f"EVIL = {EVIL.replace('/', '')!r}\n"
        "class Hasty(Agent):\n"
        "    engine = 'embedded'\n"
        "    def on_start(self):\n"
        "        raise ValueError(EVIL.replace(' ', ''))\n"
        "tree = one_for_one(child(Hasty, name='hasty'), max_restarts=1, within=60)\n"
        "runtime_options = {'control': False}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mlld_sdk", "run", "service.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "\\u001b[2J" in tame(done.stderr)
