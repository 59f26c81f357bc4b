"""Which program is started, for every way mlld comes to be on a machine."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk.transport.command import EngineCommand, embedded_command, resolve
from mlld_sdk.transport.errors import CommandNotExecutable, CommandNotFound

SURVIVE = "--unhandled-rejections=warn"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with node, and nothing else, on its PATH."""
    executable(tmp_path / "bin" / "node")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("NODE_OPTIONS", raising=False)
    return tmp_path


def executable(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def package(root: Path, name: str = "mlld") -> Path:
    (root / "dist").mkdir(parents=True)
    (root / "dist" / "cli.cjs").write_text("")
    (root / "package.json").write_text(json.dumps({"name": name}))
    executable(root / "bin" / "mlld-wrapper.cjs")
    return root / "bin" / "mlld-wrapper.cjs"


def test_the_installed_wrapper_is_replaced_by_the_engine_behind_its_link(place: Path) -> None:  # T-2
    wrapper = package(place / "lib" / "node_modules" / "mlld")
    (place / "bin" / "mlld").symlink_to(wrapper)
    cli = place / "lib" / "node_modules" / "mlld" / "dist" / "cli.cjs"
    found = resolve("mlld", cwd=place)
    assert found.argv == (str(place / "bin" / "node"), SURVIVE, str(cli), "live", "--stdio")
    assert (found.cwd, found.wrapped, found.label, found.extended) == (str(place), False, "live", False)


def test_a_shim_next_to_the_package_is_replaced_too(place: Path) -> None:  # T-2
    package(place / "node_modules" / "mlld")
    shim = executable(place / "node_modules" / ".bin" / "mlld")
    assert resolve(shim).argv[2] == str(place / "node_modules" / "mlld" / "dist" / "cli.cjs")


def test_a_wrapper_with_nothing_recognisable_behind_it_runs_distrusted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # T-2
    program = executable(place / "bin" / "mlld")
    package(place / "bin" / "x", name="other")
    monkeypatch.setenv("NODE_OPTIONS", "--trace-warnings")
    found = resolve(heap=4096)
    assert found.argv == (str(program), "live", "--stdio")
    assert found.wrapped
    assert found.environ["NODE_OPTIONS"] == f"--trace-warnings {SURVIVE} --max-old-space-size=4096"


def test_scripts_and_node_itself_are_given_the_flags(place: Path) -> None:
    node = str(place / "bin" / "node")
    cli = place / "cli.cjs"
    cli.write_text("")
    assert resolve(cli, survive=False).argv == (node, str(cli), "live", "--stdio")
    found = resolve("node", [str(cli)], heap=512, heap_snapshot_near_limit=2)
    flags = (SURVIVE, "--max-old-space-size=512", "--heapsnapshot-near-heap-limit=2")
    assert found.argv == (node, *flags, str(cli), "live", "--stdio")


def test_any_other_program_is_run_as_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = executable(place / "work" / "engine")
    monkeypatch.chdir(place / "work")
    found = resolve("./engine", ["--fast"], environ={"A": "1"}, cwd="/")
    assert found.argv == (str(program), "--fast", "live", "--stdio")
    assert found.environ == {"A": "1"}


def test_what_is_not_there_says_how_to_get_it_and_how_to_do_without(place: Path) -> None:  # T-1
    for command in ("mlld", str(place / "nowhere" / "mlld")):
        with pytest.raises(CommandNotFound) as caught:
            resolve(command)
        assert caught.value.code == "COMMAND_NOT_FOUND"
        assert "npm install" in str(caught.value)
        assert "embedded" in str(caught.value)


def test_what_may_not_be_run_is_told_apart_from_what_is_not_there(place: Path) -> None:  # T-1
    file = place / "mlld"
    file.write_text("#!/bin/sh\n")
    with pytest.raises(CommandNotExecutable):
        resolve(file)


def test_a_script_without_node_is_a_clear_error(place: Path) -> None:  # T-1
    (place / "bin" / "node").unlink()
    cli = place / "cli.cjs"
    cli.write_text("")
    with pytest.raises(CommandNotFound, match="no node"):
        resolve(cli)


def test_the_embedded_engine_runs_on_this_python_and_speaks_the_extended_protocol() -> None:
    command = embedded_command("--slow", cwd="/", environ={"A": "1"})
    assert command.argv[0] == sys.executable
    assert command.argv[-3:] == ("--slow", "live", "--stdio")
    assert command.extended
    assert os.path.isdir(os.path.join(command.argv[-4], "mlld_sdk"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"argv": ("/bin/true", "a\0b")},
        {"argv": ("/bin/true", "\ud800")},
        {"cwd": "/tmp/a\0b"},
        {"environ": {"A": "x\0y"}},
        {"environ": {"A": 5}},
        {"environ": {"A=B": "x"}},
    ],
)
def test_what_no_process_can_be_given_is_refused_when_the_command_is_made(wrong: dict[str, Any]) -> None:  # T-1
    with pytest.raises(CommandNotExecutable, match="no process can be given"):
        EngineCommand(**{"argv": ("/bin/true",), **wrong})
