"""The client behind the plain functions: supervised, and yet as light, as forked and as ended as any other."""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Client
from mlld_sdk.agents.supervised_client import ClientGaveUp
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.client import functions
from mlld_sdk.runtime import default_client, default_runtime
from mlld_sdk.supervision import budget
from mlld_sdk.testing import leak_check
from mlld_sdk.transport.errors import CommandNotFound, EngineClosed, EngineDied
from tests.support.engines import is_alive
from tests.support.eventually import eventually
from tests.support.trees import attempt

WHO = "run sh { echo $PPID }"
DIES = "run sh { kill -9 $PPID }"


@pytest.fixture(autouse=True)
def on_the_embedded_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLLD_ENGINE", "embedded")
    functions.close()
    yield
    functions.close()


def program(code: str, *args: Any, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, args)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_nothing_runs_before_the_first_call() -> None:  # C-75
    said = program("""\
        import sys, threading
        from mlld_sdk import process
        from mlld_sdk.client import close
        assert close() == 0
        print(threading.active_count(), *(f"mlld_sdk.{room}" in sys.modules for room in ("runtime.runtime", "actors")))
        print(process('show "then"').strip())
        """)
    assert (said.stdout.split(), said.stderr, said.returncode) == (["1", "False", "False", "then"], "", 0)


def test_it_stands_in_a_tree_by_name_with_its_limits() -> None:  # C-75
    with leak_check():
        assert functions.process('show "up"') == "up\n"
        tree = default_runtime().tree()
        assert "client" in tree
        assert "restarts 0/10 in 60s" in tree
        assert default_runtime().verdict().word == "healthy"
        assert default_runtime()["client"].process('show "the same"') == "the same\n"
        functions.close()


def test_an_engine_that_dies_is_a_restart_and_the_next_call_is_answered() -> None:  # C-75, C-81
    for trial in range(1, 4):
        with pytest.raises(EngineDied):
            functions.process(DIES)
        assert functions.process('show "at once"') == "at once\n"
        assert f"restarts {trial}/10" in default_runtime().tree()


def test_when_its_limit_is_used_up_it_says_so_and_begins_anew_after_a_close(monkeypatch: Any) -> None:  # C-76
    monkeypatch.setattr(default_client, "LIMIT", budget(2, 60.0, then="stop"))
    for _ in range(3):
        with pytest.raises(EngineDied):
            functions.process(DIES)
    eventually(lambda: default_runtime().verdict().word == "gave_up")
    for ask in (lambda: functions.process('show "x"'), lambda: functions.process_async('show "x"')):
        error = attempt(ask)
        assert isinstance(error, ClientGaveUp)
        assert "mlld_sdk.client.close()" in str(error)
    functions.close()
    assert functions.process('show "anew"') == "anew\n"
    assert "restarts 0/2" in default_runtime().tree()


def test_closing_ends_its_engines_and_whoever_waits_at_once() -> None:  # C-14, C-75
    pid = int(functions.process(WHO))
    handle = functions.process_async("run sh { sleep 600 }", timeout=None)
    assert functions.close() == 1
    assert isinstance(handle.exception(60), EngineClosed)
    eventually(lambda: not is_alive(pid))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("default")]


def test_a_call_while_its_runtime_ends_is_answered_by_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:  # C-75
    functions.process(WHO)
    first, answers = default_runtime(), []
    stop = first.stop

    def stops(**options: Any) -> Any:
        report = stop(**options)
        answers.append(functions.process("show `meanwhile`"))
        return report

    monkeypatch.setattr(first, "stop", stops)
    functions.close()
    assert answers == ["meanwhile\n"]
    assert default_runtime() is not first


def test_a_client_of_ones_own_is_used_as_it_is() -> None:  # C-75
    functions.process('show "supervised"')
    mine = Client(engine="embedded")
    functions.set_default_client(mine)
    assert functions.default_client() is mine
    with pytest.raises(ConfigurationError, match="no runtime"):
        default_runtime()
    functions.set_default_client(None)
    assert functions.default_client() is not mine


def test_it_looks_for_scripts_where_the_program_is_at_the_moment(tmp_path: Path, monkeypatch: Any) -> None:  # C-12
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "where.mld").write_text(f"show `{place}`\n")
        monkeypatch.chdir(tmp_path / place)
        assert functions.execute("where.mld").output.strip() == place


def test_a_program_that_is_not_there_is_the_error_of_the_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # C-80
    monkeypatch.setenv("MLLD_ENGINE", "live")
    monkeypatch.setenv("PATH", str(tmp_path))
    for _ in range(2):
        with pytest.raises(CommandNotFound):
            functions.process('show "x"')
    assert default_runtime().verdict().word == "healthy"


def test_a_forked_child_has_one_of_its_own_and_the_parents_goes_on() -> None:  # C-15
    said = program("""\
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from mlld_sdk import process
        from mlld_sdk.client import close, default_client
        who = "run sh { echo $PPID }"
        first = process(who)
        client = default_client()
        child = os.fork()
        if child == 0:
            mine = process(who)
            assert mine != first and default_client() is not client
            assert process(who) == mine
            os._exit(0 if close() == 0 else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert process(who) == first and default_client() is client
        print("fine")
        """)
    assert (said.stdout, said.stderr, said.returncode) == ("fine\n", "", 0)


@pytest.mark.parametrize("at_the_end", ["", "os._exit(0)", "raise SystemExit(0)", "close()"])
def test_a_program_may_end_at_any_time_and_leaves_no_engine(at_the_end: str) -> None:  # C-14
    said = program(f"""\
        import os, sys, threading
        from mlld_sdk import process, process_async
        from mlld_sdk.client import close
        print(process("run sh {{ echo $PPID }}").strip(), flush=True)
        handle = process_async("run sh {{ sleep 600 }}", timeout=None)
        threading.Thread(target=handle.exception, daemon=True).start()
        {at_the_end}
        """)
    assert (said.stderr, said.returncode) == ("", 0)
    eventually(lambda: not is_alive(int(said.stdout)))
