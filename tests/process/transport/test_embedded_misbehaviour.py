"""Each misbehaviour that can be asked for is seen to happen."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from mlld_sdk.transport.embedded.server.misbehaviour import KEYS
from tests.support.embedded import COMMAND, DEADLINE, Embedded, descendants, is_running
from tests.support.eventually import eventually

TWO_ASKS = 'exe llm @ask(p) = sh { echo "$p" >> calls.log; echo "A $p" }\nshow @ask("a")\nshow @ask("b")\n'


def started(folder: Path, keys: str, *flags: str) -> Embedded:
    return Embedded(folder, "--misbehave", keys, *flags)


def test_it_refuses_to_start(tmp_path: Path) -> None:
    with started(tmp_path, "refuse-to-start=7") as engine:
        assert engine.exit_code() == 7
        assert engine.line() is None


def test_an_unknown_misbehaviour_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with started(tmp_path, "explode=1") as engine:
        assert engine.exit_code() == 78
        assert engine.process.stderr is not None
        said = engine.process.stderr.read().decode()
        assert "unknown misbehaviour: explode" in said
        assert "die-at-step" in said


def test_it_starts_late(tmp_path: Path) -> None:
    began = time.monotonic()
    with started(tmp_path, "start-delay=0.4") as engine:
        engine.send("hello")
        assert engine.messages(1)
    assert time.monotonic() - began >= 0.4


def test_it_dies_at_a_request_with_an_exit_code(tmp_path: Path) -> None:
    with started(tmp_path, "die-at-request=2,die-with=9") as engine:
        assert engine.ask("process", "show `one`")["output"] == "one\n"
        engine.send("process", 2, "show `two`")
        assert engine.line() is None
        assert engine.exit_code() == 9


def test_it_dies_at_a_step_by_a_signal(tmp_path: Path) -> None:
    (tmp_path / "s.mld").write_text(TWO_ASKS)
    with started(tmp_path, "die-at-step=2,die-with=SEGV") as engine:
        engine.send("execute", 1, {"filepath": "s.mld"})
        assert engine.exit_code() == -signal.SIGSEGV
    assert (tmp_path / "calls.log").read_text().split() == ["a"]


def test_it_dies_right_after_a_step_was_stored(tmp_path: Path) -> None:
    (tmp_path / "s.mld").write_text(TWO_ASKS)
    with started(tmp_path, "die-after-step=1") as engine:
        engine.send("execute", 1, {"filepath": "s.mld"})
        assert engine.exit_code() == 1
    rows = (tmp_path / ".mlld" / "checkpoints" / "s" / "llm-cache.jsonl").read_text().splitlines()
    assert [json.loads(row)["argsPreview"] for row in rows] == ["a"]


def test_it_misbehaves_only_once_when_told_so(tmp_path: Path) -> None:
    (tmp_path / "s.mld").write_text(TWO_ASKS)
    keys = f"die-at-step=2,die-with=KILL,once={tmp_path / 'once'}"
    with started(tmp_path, keys) as engine:
        engine.send("execute", 1, {"filepath": "s.mld"})
        assert engine.exit_code() == -signal.SIGKILL
    with started(tmp_path, keys) as engine:
        assert engine.ask("execute", {"filepath": "s.mld", "resume": True})["output"] == "A a\n\nA b\n"


def test_it_hangs_at_a_request_and_answers_nothing_more(tmp_path: Path) -> None:
    with started(tmp_path, "hang-at-request=1") as engine:
        assert engine.ask("hello")
        engine.send("process", 2, "show `x`")
        engine.send("hello", 3)
        with pytest.raises(TimeoutError):
            engine.line(within=0.3)
        assert is_running(engine.process.pid)


def test_it_hangs_at_a_step_but_still_answers_probes(tmp_path: Path) -> None:
    (tmp_path / "s.mld").write_text(TWO_ASKS)
    with started(tmp_path, "hang-at-step=1") as engine:
        engine.send("execute", 1, {"filepath": "s.mld"})
        engine.until_event("checkpoint:miss")
        assert engine.ask("hello", request_id=2)
        with pytest.raises(TimeoutError):
            engine.line(within=0.3)


def test_it_stops_reading_but_keeps_the_pipe_open(tmp_path: Path) -> None:
    with started(tmp_path, "stop-reading-after=1") as engine:
        assert engine.ask("hello")
        engine.send("hello", 2)
        with pytest.raises(TimeoutError):
            engine.line(within=0.3)
        engine.send("hello", 3)
        assert is_running(engine.process.pid)


def test_it_floods_stdout(tmp_path: Path) -> None:
    with started(tmp_path, "flood-stdout=64k") as engine:
        engine.send("process", 1, "show `x`")
        noise = 0
        while (line := engine.line()) is not None and not line.startswith(b"{"):
            noise += len(line) + 1
        assert noise >= 64 * 1024 - 80


def test_it_floods_stderr(tmp_path: Path) -> None:
    with started(tmp_path, "flood-stderr=32k") as engine:
        assert engine.ask("process", "show `x`")["output"] == "x\n"
        engine.close_requests()
        engine.exit_code()
        assert engine.process.stderr is not None
        assert len(engine.process.stderr.read()) >= 32 * 1024


def test_it_garbles_lines(tmp_path: Path) -> None:
    with started(tmp_path, "garble-every=2") as engine:
        engine.send("hello", 1)
        engine.send("hello", 2)
        assert json.loads(engine.line() or b"")
        with pytest.raises(json.JSONDecodeError):
            json.loads(engine.line() or b"")


def test_it_glues_text_in_front_of_lines(tmp_path: Path) -> None:
    with started(tmp_path, "glue-every=1") as engine:
        engine.send("hello", 1)
        line = engine.line() or b""
        assert line.startswith(b"NO-NEWLINE {")
        assert json.loads(line[line.index(b"{") :])["result"]["id"] == 1


def test_it_splits_lines_into_pieces(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # a read gives what one write gave
    ours.settimeout(DEADLINE)
    command = [*COMMAND, "--misbehave", "split-lines=5"]
    engine = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=theirs)
    theirs.close()
    with ours:
        engine.communicate(b'{"method":"hello","id":1}\n', timeout=DEADLINE)
        pieces = list(iter(lambda: ours.recv(65536), b""))
    assert {len(piece) for piece in pieces[:-1]} == {5}
    assert json.loads(b"".join(pieces))["result"]["id"] == 1


def test_it_forges_an_answer(tmp_path: Path) -> None:
    with started(tmp_path, "forge-id=77") as engine:
        engine.send("hello", 1)
        forged = json.loads(engine.line() or b"")["result"]
        assert (forged["id"], forged["output"]) == (77, "forged\n")
        assert json.loads(engine.line() or b"")["result"]["id"] == 1


def test_it_is_slow(tmp_path: Path) -> None:
    with started(tmp_path, "slow=0.4") as engine:
        engine.send("hello", 1)
        with pytest.raises(TimeoutError):
            engine.line(within=0.1)
        assert engine.messages(1)


def test_it_leaks_memory(tmp_path: Path) -> None:
    with started(tmp_path, "leak=8m") as engine:

        def resident() -> int:
            return int(Path(f"/proc/{engine.process.pid}/statm").read_text().split()[1]) * 4096

        engine.ask("process", "show `x`")
        before = resident()
        for request_id in (2, 3, 4):
            engine.ask("process", "show `x`", request_id)
        assert resident() - before > 3 * 7 * (1 << 20)


def test_it_ignores_sigterm(tmp_path: Path) -> None:
    with started(tmp_path, "ignore-sigterm=1") as engine:
        assert engine.ask("hello")
        engine.process.terminate()
        assert engine.ask("hello", request_id=2)


def test_it_ignores_the_end_of_requests(tmp_path: Path) -> None:
    with started(tmp_path, "ignore-eof=1") as engine:
        assert engine.ask("hello")
        engine.close_requests()
        with pytest.raises(TimeoutError):
            engine.line(within=0.3)
        assert is_running(engine.process.pid)


@pytest.mark.parametrize("kind", ["group", "setsid"])
def test_it_leaves_orphans(tmp_path: Path, kind: str) -> None:
    with started(tmp_path, f"orphans={kind}") as engine:
        assert engine.ask("process", "show `x`")["output"] == "x\n"
        (orphan,) = descendants(engine.process.pid)
        same_group = os.getpgid(orphan) == os.getpgid(engine.process.pid)
        assert same_group is (kind == "group")
        engine.close_requests()
        engine.exit_code()
        assert is_running(orphan)
        os.kill(orphan, signal.SIGKILL)
        eventually(lambda: not is_running(orphan), within=60)


def test_the_environment_can_ask_too(tmp_path: Path) -> None:
    with Embedded(tmp_path, MLLD_EMBEDDED_MISBEHAVE="refuse-to-start=5") as engine:
        assert engine.exit_code() == 5


def test_the_documentation_lists_every_key() -> None:
    text = (Path(__file__).parents[3] / "docs" / "embedded.md").read_text("utf-8")
    assert [key for key in KEYS if f"`{key}`" not in text] == []
