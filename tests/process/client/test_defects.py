"""What ends, hangs or fools upstream's client, row by row (`docs/migration.md`), and what ours does instead.

Rows that need no misbehaving engine are held by `test_behaviour.py` and the unit tests, under their names.
"""

import concurrent.futures
import gc
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import ConfigurationError, InfrastructureError, MlldError
from mlld_sdk.client.client import Client
from mlld_sdk.engines.start_gate import EngineCoolingDown
from mlld_sdk.scripts.stream_events import LlmToken, LlmToolUse
from mlld_sdk.transport.engine import Engine
from mlld_sdk.transport.errors import (
    CallCancelled,
    CallTimeout,
    CommandNotFound,
    EngineClosed,
    EngineDied,
    EngineDiedAtStart,
    EngineOverloaded,
    ScriptError,
)
from tests.support.clients import EngineUnderTest, Make, client, engine, engine_of, make_client, pid_of, soon
from tests.support.engines import do, hostile, is_alive

__all__ = ["client", "engine", "make_client"]

LOOP = 'loop(99999, 20ms) until @state.exit [\n  continue\n]\nshow "loop-stopped"\n'


class HostileClient(Client):
    """A client whose engine does with a request what the script, a list of verbs, says."""

    def __init__(self, *habits: str, **options: Any) -> None:
        super().__init__(**{"timeout": 20.0, **options})
        command, known = replace(hostile(*habits), cwd=self.working_dir), {"env", "limits"} & options.keys()
        self.gate._start = partial(Engine.start, command, exclusive=True, **{name: options[name] for name in known})
        self._scripts.requests._said = verbs  # type: ignore[method-assign]


def verbs(method: str, params: dict[str, Any], events: str) -> tuple[str, dict[str, Any]]:
    return method, json.loads(params["script"]) if params["script"].startswith("{") else params


def told(*verbs: Any) -> str:
    return json.dumps(do(*verbs))


@contextmanager
def hostile_client(*habits: str, **options: Any) -> Iterator[HostileClient]:
    with HostileClient(*habits, **options) as client:
        yield client


def ticking(tmp_path: Path, *, after: str = "") -> tuple[str, Callable[[], int]]:
    """Make a script that leaves a mark for each round it runs, and what counts them."""
    marks = tmp_path / "ticks"
    script = (
        "loop(99999, 20ms) until @state.exit [\n"
        f"  run sh {{ echo tick >> {shlex.quote(str(marks))} }}\n  continue\n]\n{after}"
    )
    return script, lambda: marks.read_text().count("tick") if marks.exists() else 0


def begun(client: Client, script: str, has_begun: Callable[[], object], how: str, **options: Any) -> Any:
    """Start a run and see it begin; for `timeout` with the first deadline that leaves it the time for that."""
    for timeout in (1.0, 4.0, 16.0) if how == "timeout" else (60.0,):
        handle = client.process_async(script, timeout=timeout, **options)
        soon(lambda handle=handle: has_begun() or handle.done())
        if has_begun():
            return handle
    raise AssertionError("the run never began")


# Engines: E1 to E16.


def test_a_failing_a_cancelled_and_a_late_neighbour_leave_everybody_else_alone(client: Client) -> None:  # C-60, E1
    neighbour = client.process_async(LOOP, state={"exit": False})
    doomed = client.process_async(LOOP, state={"exit": False, "k": None})
    with pytest.raises(ScriptError):
        client.process("show @nothing_here")
    doomed.cancel()
    with pytest.raises(CallCancelled):
        doomed.result()
    with pytest.raises(CallTimeout):
        client.process(LOOP, state={"exit": False}, timeout=0.4)
    neighbour.update_state("exit", True)
    assert neighbour.result() == "loop-stopped\n"
    assert client.process('show "next"') == "next\n"


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_an_exclusive_run_that_is_given_up_is_dead_before_anybody_is_told(
    make_client: Make, tmp_path: Path, how: str
) -> None:  # C-61, E2 and E10
    client = make_client(isolation="exclusive", warm=0)
    client.process('show "warm"')
    script, ticks = ticking(tmp_path)
    handle = begun(client, script, ticks, how, state={"exit": False})
    if how == "cancel":
        handle.cancel()
    with pytest.raises(CallCancelled if how == "cancel" else CallTimeout):
        handle.result()
    assert handle._on_engine().engine.exit is not None
    seen = ticks()
    client.process("run sh { sleep 0.3 }\n")  # time in which a ghost would have ticked, on another engine
    assert ticks() == seen


def test_a_shared_engine_with_a_ghost_in_it_is_replaced_when_its_neighbours_are_done(
    client: Client, tmp_path: Path
) -> None:  # C-62, E2
    neighbour = client.process_async(LOOP, state={"exit": False})
    script, ticks = ticking(tmp_path)
    ghost = client.process_async(script, state={"exit": False})
    soon(lambda: ticks() > 0)
    old = ghost._on_engine().engine
    ghost.cancel()
    with pytest.raises(CallCancelled):
        ghost.result()
    assert client.process('show "fresh"') == "fresh\n"
    assert old.exit is None
    assert pid_of(client) != old.pid
    neighbour.update_state("exit", True)
    assert neighbour.result() == "loop-stopped\n"
    assert old.wait(60)
    seen = ticks()
    client.process("run sh { sleep 0.3 }\n")
    assert ticks() == seen


@pytest.mark.parametrize("how", ["cancel", "timeout", "close"])
@pytest.mark.parametrize("isolation", ["shared", "exclusive"])
def test_no_shell_of_a_script_survives_its_run(
    make_client: Make, tmp_path: Path, how: str, isolation: str
) -> None:  # C-63, E10
    client = make_client(isolation=isolation, warm=0)
    noted = tmp_path / "pid"
    script = f"run sh {{ echo $$ > {shlex.quote(str(noted))}; sleep 300; echo }}\n"
    client.process('show "warm"')
    handle = begun(client, script, lambda: noted.exists() and noted.read_text().strip(), how)
    shell = noted.read_text()
    if how == "cancel":
        handle.cancel()
    elif how == "close":
        client.close()
    assert handle.exception(60) is not None
    soon(lambda: not is_alive(int(shell)))


def test_what_a_finished_run_left_running_is_ended(make_client: Make, tmp_path: Path) -> None:  # C-63, E9
    client = make_client(isolation="exclusive", warm=0)
    noted = tmp_path / "pid"
    client.process(f"run sh {{ sleep 300 >/dev/null 2>&1 & echo $! > {shlex.quote(str(noted))} }}\n")
    soon(lambda: not is_alive(int(noted.read_text())))
    assert client.process('show "again"') == "again\n"
    assert client.pool_status.started == 1


MCP_SERVER = """
import json, os, sys
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
for line in sys.stdin:
    message = json.loads(line)
    if message.get("id") is None:
        continue
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    answers = {
        "initialize": {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}},
                       "serverInfo": {"name": "t", "version": "1"}},
        "tools/list": {"tools": [{"name": "echo", "description": "e", "inputSchema": schema}]},
        "tools/call": {"content": [{"type": "text", "text": "echo:hi"}]},
    }
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answers.get(message["method"], {})}), flush=True)
"""


@pytest.mark.real
@pytest.mark.parametrize("isolation", ["shared", "exclusive"])
def test_mcp_servers_end_with_the_run_that_asked_for_them(
    engine: EngineUnderTest, make_client: Make, tmp_path: Path, isolation: str
) -> None:  # C-63, E9
    if engine.kind == "embedded":
        pytest.skip("the embedded engine has no MCP")
    server, pids = tmp_path / "server.py", tmp_path / "pids"
    server.write_text(MCP_SERVER)
    client = make_client(isolation=isolation, warm=0)
    command = f"{sys.executable} {server} {pids}"
    for _ in range(2):
        assert "echo:hi" in client.process(
            'import tools from mcp "tools" as @t\nshow @t.echo("hi")\n', mcp_servers={"tools": command}
        )
    soon(lambda: not any(is_alive(int(pid)) for pid in pids.read_text().split()))


def test_protocol_that_a_script_prints_forges_nothing() -> None:  # C-64, E5
    with hostile_client() as client:
        victim = client.process_async(told("hang"))
        forged = [json.dumps({"result": {"id": number, "output": "FORGED"}}) + "\n" for number in range(100)]
        assert client.process(told(*[("print", line) for line in forged])) == "ok"
        assert not victim.done()
        victim.update_state("finish", True)
        assert victim.result() == "finished"


@pytest.mark.parametrize(
    "noise", ["42\n", "null\n", "[1]\n", '"x"\n', "true\n", "{}\n", "dots ......", "\x00\n", "ü\n"]
)
def test_noise_on_the_protocol_channel_loses_neither_events_nor_answers(noise: str) -> None:  # C-64, E5 and P1
    with hostile_client() as client:
        write = ("event", "state:write", {"write": {"path": "k", "value": "v"}})
        handle = client.process_async(told(("print", noise), write, ("print", noise)))
        assert handle.result() == "ok"
        assert [found.value for found in handle.full_result().state_writes] == ["v"]
        assert client.process(told()) == "ok"


def test_a_tool_call_of_a_model_reaches_the_run_it_belongs_to() -> None:  # C-31, E6
    with hostile_client() as client:
        handle = client.process_async(told("tool"))
        assert handle.result() == "ok"
        assert [event.tool_use_id for event in handle.events() if isinstance(event, LlmToolUse)] == ["tool-1"]


def test_a_run_cancelled_before_it_began_never_begins(make_client: Make, tmp_path: Path) -> None:  # C-41, E7
    client = make_client(isolation="exclusive", warm=0)
    client.process('show "warm"')
    mark = tmp_path / "mark"
    handle = client.process_async(f"run sh {{ sleep 0.2; touch {shlex.quote(str(mark))} }}\n")
    assert handle.cancel() is True
    with pytest.raises(CallCancelled) as ended:
        handle.result()
    assert ended.value.code == "ABORTED"
    client.process("run sh { sleep 0.4 }\n")
    assert not mark.exists()


def test_too_early_a_cancel_is_not_taken_for_the_result() -> None:  # C-41, E7
    with hostile_client() as client:
        handle = client.process_async(told(("late", 0.3), "hang"))
        handle.cancel()
        with pytest.raises(CallCancelled):
            handle.result()


@pytest.mark.parametrize("isolation", ["shared", "exclusive"])
def test_an_engine_that_is_busy_and_deaf_to_signals_holds_nobody_up(isolation: str) -> None:  # C-42, E11
    with hostile_client("stubborn", isolation=isolation, warm=0) as client:
        client.process(told())
        handle = client.process_async(told(("block", 300)), timeout=0.5)
        with pytest.raises(CallTimeout):
            handle.result(60)
        assert client.process(told()) == "ok"
        stuck = client.process_async(told(("block", 300)), timeout=None)
        client.close()
        assert isinstance(stuck.exception(60), MlldError)


def test_debug_events_cost_neither_memory_nor_attention() -> None:  # C-30, E12
    debug = '{"event":{"id":1,"type":"debug:variable:create","name":"x","variable":{}}}\n'
    with hostile_client() as client:
        handle = client.process_async(told(("print", debug * 5000)))
        assert handle.result() == "ok"
        assert [event.kind for event in handle.events()] == ["run.started", "run.completed"]
        assert engine_of(client).stats.debug_dropped == 5000


def test_parallel_model_streams_are_told_apart() -> None:  # C-31, E13
    def chunk(pipeline: str, text: str) -> tuple[str, str, dict[str, Any]]:
        inner = {"type": "CHUNK", "pipelineId": pipeline, "stageIndex": 0, "chunk": text, "source": "stdout"}
        return ("event", "stream:chunk", {"event": inner})

    say = [json.dumps({"type": "text", "text": text}) + "\n" for text in ("one", "two")]
    with hostile_client() as client:
        handle = client.process_async(
            told(chunk("a", say[0][:9]), chunk("b", say[1]), chunk("a", say[0][9:]), ("event", "streaming:message"))
        )
        tokens = [(event.stream, event.text) for event in handle.events() if isinstance(event, LlmToken)]
    assert tokens == [("b/0", "two"), ("a/0", "one")]


def test_an_engine_behind_a_wrapper_dies_with_it_and_is_missed(tmp_path: Path) -> None:  # C-13, E15
    wrapper, noted = tmp_path / "wrapper", tmp_path / "pid"
    inner = shlex.join([sys.executable, "-m", "mlld_sdk.transport.embedded"])
    wrapper.write_text(f'#!/bin/sh\nexec 3<&0\n{inner} "$@" <&3 &\necho $! > {noted}\nwait $!\nexit 0\n')
    wrapper.chmod(0o755)
    with Client(str(wrapper), timeout=20) as client:
        assert client.process('show "hi"') == "hi\n"
        handle = client.process_async("run sh { sleep 300 }\n")
        os.kill(int(noted.read_text()), signal.SIGKILL)
        assert isinstance(handle.exception(60), EngineDied)
        assert client.process('show "again"') == "again\n"
        engine = int(noted.read_text())
    soon(lambda: not is_alive(engine))


def test_the_heap_limit_reaches_node(tmp_path: Path) -> None:  # C-2, E16
    cli = tmp_path / "cli.cjs"
    cli.write_text("")
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\n")
    node.chmod(0o755)
    command = Client(str(node), [str(cli)], heap="2g", heap_snapshot_near_limit=3).engine_command()
    assert {"--max-old-space-size=2048", "--heapsnapshot-near-heap-limit=3"} <= set(command.argv)
    assert command.argv.index("--max-old-space-size=2048") < command.argv.index(str(cli))


# The Python client: P1 to P21.


def test_engines_killed_under_eight_busy_threads_lose_only_what_was_in_flight(
    client: Client,
) -> None:  # C-13, P3
    client.process('show "warm"')
    stop, kills, outcomes = threading.Event(), 6, []

    def work() -> None:
        while not stop.is_set():
            try:
                outcomes.append(client.process('show "x"', timeout=60))
            except (EngineDied, EngineClosed) as error:
                outcomes.append(error)

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        workers = [threads.submit(work) for _ in range(8)]
        for _ in range(kills):
            before = len(outcomes)
            soon(lambda before=before: len(outcomes) > before + 20 and pid_of(client))
            killed = pid_of(client)
            os.kill(killed, signal.SIGKILL)
        stop.set()
        for worker in workers:
            worker.result(60)
    soon(lambda: pid_of(client) != killed)  # with no request in flight any more, its end may still be on the way
    lost = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert {outcome for outcome in outcomes if isinstance(outcome, str)} == {"x\n"}
    assert len(lost) <= kills * 8
    assert client.process('show "x"') == "x\n"


def test_a_deadline_covers_the_writing_to_an_engine_that_does_not_read() -> None:  # C-8, P4
    with hostile_client("deaf") as client:
        with pytest.raises(CallTimeout):
            client.process('show "x"', payload={"t": "a" * 4_000_000}, timeout=0.5)
        handle = client.process_async('show "x"', payload={"t": "a" * 4_000_000}, timeout=60)
        handle.cancel()
        with pytest.raises(CallCancelled):
            handle.result(60)


FORK = """
import os, sys
from mlld_sdk.client.client import Client

client = Client(engine="embedded", timeout=20)
assert client.process('show "parent"') == "parent\\n"
shared = client._scripts.requests.source
shared._lock.acquire()  # another thread may hold any lock at the moment of a fork
pid = os.fork()
if pid == 0:
    try:
        assert client.process('show "child"') == "child\\n"
        client.close()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
shared._lock.release()
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert client.process('show "parent"') == "parent\\n"
client.close()
"""


def run_python(script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_forked_child_gets_an_engine_of_its_own() -> None:  # C-15, P10
    ran = run_python(FORK)
    assert ran.returncode == 0, ran.stderr


def test_the_locale_of_the_host_does_not_matter() -> None:  # C-50, P11
    script = """
    from mlld_sdk.client.client import Client
    with Client(engine="embedded") as client:
        text = "h\\u00e9llo \\u4e16\\u754c \\ud83d"
        assert client.process("show @payload.t", payload={"t": text}) == text + "\\n"
    """
    ran = run_python(script, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert ran.returncode == 0, ran.stderr


def test_a_missing_command_is_one_of_our_errors_and_says_what_to_do() -> None:  # C-4, P13
    client = Client(command="mlld-does-not-exist")
    with pytest.raises(CommandNotFound) as missing:
        client.process('show "x"')
    assert isinstance(missing.value, ConfigurationError)
    assert isinstance(missing.value, MlldError)
    assert "embedded" in str(missing.value)
    assert "mlld-does-not-exist" in missing.value.message


def test_the_death_of_an_engine_is_decoded_and_reaped(client: Client) -> None:  # C-13, P14
    handle = client.process_async(LOOP, state={"exit": False})
    handle.update_state("other", 1)
    pid = pid_of(client)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineDied) as died:
        handle.result()
    assert died.value.returncode == -9
    assert died.value.code == "TRANSPORT_ERROR"
    assert isinstance(died.value, InfrastructureError)
    soon(lambda: not Path(f"/proc/{pid}").exists())  # not even as a zombie, and without another call


def test_stderr_is_kept_only_as_a_tail() -> None:  # C-13, P15
    with hostile_client() as client:
        for _ in range(3):
            client.process(told(("warn", "z" * 1000, 1000)))
        handle = client.process_async(told(("warn", "last words\n"), ("exit", 1)))
        with pytest.raises(EngineDied) as died:
            handle.result()
        assert died.value.returncode == 1
        assert len(died.value.stderr_tail) <= 16 * 1024
        assert died.value.stderr_tail.endswith("last words\n")
        assert len(str(died.value)) < 1000


def test_a_flood_of_events_nobody_reads_is_bounded_and_said() -> None:  # C-35, P16
    with hostile_client(max_events=100) as client:
        handle = client.process_async(told(("events", 5000)))
        assert handle.result() == "ok"
        events = list(handle.events())
        assert events[0].kind == "events.dropped"
        assert events[0].count + len(events) - 1 == 5002
        result = handle.full_result()
        assert (len(result.state_writes), result.events_dropped) == (100, 4900)


def test_more_runs_than_may_wait_are_refused_at_once() -> None:  # C-65, P16
    with hostile_client(isolation="exclusive", max_engines=1, warm=0, max_waiting=2) as client:
        running = [client.process_async(told("hang")) for _ in range(3)]
        with pytest.raises(EngineOverloaded) as refusal:
            client.process_async(told())
        assert refusal.value.code == "BACKPRESSURE"
        assert running[1].request_id is None
        assert running[2].cancel() is True
        with pytest.raises(CallCancelled):
            running[2].result()
        running[0].update_state("finish", 1)
        assert running[0].result() == "finished"
        running[1].update_state("finish", 1)
        assert running[1].result() == "finished"
        assert isinstance(running[1].request_id, int)


def test_a_client_nobody_holds_any_more_ends_its_engine() -> None:  # C-14, P18
    client = HostileClient()
    client.process(told())
    pid = pid_of(client)
    del client
    gc.collect()
    soon(lambda: not is_alive(pid))


@pytest.mark.parametrize("isolation", ["shared", "exclusive"])
def test_a_run_that_is_over_and_forgotten_is_gone_without_the_garbage_collector(isolation: str) -> None:  # C-35, P16
    with hostile_client(isolation=isolation, max_engines=1, warm=0) as client:
        handles = [client.process_async(told(("events", 10))) for _ in range(3)]
        logs = [weakref.ref(handle._log) for handle in handles]
        for handle in handles:
            assert len(list(handle.events())) == 12
        gc.disable()
        try:
            del handle, handles
            soon(lambda: not any(log() for log in logs))
        finally:
            gc.enable()


def test_clients_add_no_threads() -> None:  # C-16, P18
    clients = [HostileClient() for _ in range(3)]
    clients[0].process(told())
    before = threading.active_count()
    for other in clients:
        other.process(told())
    assert threading.active_count() == before
    for other in clients:
        other.close()


def test_an_engine_that_dies_at_once_is_not_started_over_and_over() -> None:  # C-17, P19
    now = [100.0]
    with hostile_client("dies", env=Env(now=lambda: now[0]), timeout=None) as client:
        with pytest.raises(EngineDiedAtStart):
            client.process(told())
        soon(lambda: client.gate.deaths == 1)
        for deaths, delay in ((2, 0.1), (3, 0.2), (4, 0.4)):
            with pytest.raises(EngineDiedAtStart) as died:
                client.process(told())
            assert died.value.returncode == 3
            assert "Cannot find module" in died.value.stderr_tail
            soon(lambda deaths=deaths: client.gate.deaths == deaths)
            with pytest.raises(EngineCoolingDown) as refusal:
                client.process(told())
            assert refusal.value.retry_after == pytest.approx(delay)
            assert "Cannot find module" in refusal.value.message
            assert re.search(r"next start is possible in \d", str(refusal.value))
            now[0] += delay


def test_an_engine_that_has_worked_is_replaced_without_delay() -> None:  # C-17
    with hostile_client() as client:
        for _ in range(3):
            assert client.process(told()) == "ok"
            with pytest.raises(EngineDied):
                client.process(told(("exit", 1)))


def test_an_engine_whose_command_comes_into_being_is_found_on_the_next_call(tmp_path: Path) -> None:  # C-4
    command = tmp_path / "mlld"
    client = Client(str(command), timeout=20)
    with pytest.raises(ConfigurationError):
        client.process('show "x"')
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m mlld_sdk.transport.embedded "$@"\n')
    command.chmod(0o755)
    with client:
        assert client.process('show "x"') == "x\n"


def test_exclusive_runs_wait_their_turn_and_their_deadline_runs_meanwhile() -> None:  # C-65
    with hostile_client(isolation="exclusive", max_engines=1, warm=0) as client:
        first = client.process_async(told("hang"))
        late = client.process_async(told(), timeout=0.2)
        waiting = client.process_async(told())
        with pytest.raises(CallTimeout):
            late.result()
        assert not waiting.done()
        first.update_state("finish", 1)
        assert waiting.result() == "ok"
        assert client.pool_status.started == 1


def test_closing_a_client_ends_the_runs_that_wait_too() -> None:  # C-14 C-65
    client = HostileClient(isolation="exclusive", max_engines=1, warm=0, timeout=None)
    running, waiting = client.process_async(told("hang")), client.process_async(told())
    client.close()
    for handle in (running, waiting):
        assert isinstance(handle.exception(60), EngineClosed)
    assert client.process(told()) == "ok"
    client.close()


def test_exclusive_runs_do_not_share_an_engine_and_spares_are_warm() -> None:  # C-61
    with hostile_client(isolation="exclusive", max_engines=3, warm=1) as client:
        runs = [client.process_async(told("hang")) for _ in range(3)]
        assert len({run._on_engine().engine.pid for run in runs}) == 3
        soon(lambda: client.pool_status.idle == 1)
        runs[0].cancel()
        assert isinstance(runs[0].exception(60), CallCancelled)
        for run in runs[1:]:
            run.update_state("finish", 1)
            assert run.result() == "finished"


@pytest.mark.parametrize("engine", ["live", "embedded"])
def test_an_engine_of_its_own_goes_on_after_a_failed_script_unless_branches_of_that_may_run_on(
    engine: Any, tmp_path: Path
) -> None:  # C-61
    client = HostileClient(engine=engine, isolation="exclusive", max_engines=1, warm=0, working_dir=tmp_path)
    with client:
        for n in range(3):
            with pytest.raises(ScriptError):
                client.process(told(("fail", "RUNTIME_ERROR", "it failed")))
            assert client.process(told()) == "ok"
            assert client.pool_status.started == (n + 2 if engine == "live" else 1)


def test_an_embedded_engine_with_the_real_ones_habits_is_searched_for_cuts_too() -> None:  # C-51, E3
    with Client(engine="embedded", command_args=["--like-real"], timeout=20) as client:
        result = client.process_result("show @payload.t", payload={"t": "x" * 9000})
    assert result.truncated
    assert len(result.output) <= 4000
