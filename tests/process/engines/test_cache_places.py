"""Caches are looked for where the engine keeps them: mlld 2.0.5 in `.mlld`, the 2.1 line in `.llm`."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Job, Retry, child, one_for_one
from mlld_sdk.client.client import Client
from mlld_sdk.engines.checkpoints import CacheNotFound, Checkpoints
from mlld_sdk.transport.mlld_package import cache_place
from tests.support.agents import running
from tests.support.raw_engine import REAL, needs_real, real_version

ENGINE_21 = Path(__file__).parents[2] / "support" / "engine_21.py"
SAYS = {
    "2.0.5": 'DEFAULT_CACHE_ROOT = import_node_path9.default.join(".mlld", "checkpoints");',
    "2.1.0": 'OLD_DIR = ".mlld";\nSTATE_DIR = ".llm";\nDEFAULT_CACHE_ROOT = path2.join(STATE_DIR, "checkpoints");',
}
"""What the program of a package says of the place, in the words of each."""

ASK = """\
exe llm @ask(p) = sh {
  echo "$p" >> calls.log
  if [ -e silent ]; then exit 0; fi
  echo "answer to $p"
}
show @ask("one")
show @ask("two")
"""


def install(directory: Path, program: str, version: str = "2.1.0") -> Path:
    """Lay out a package of mlld whose program says where it keeps its caches; gives that program."""
    (directory / "dist").mkdir(parents=True)
    (directory / "package.json").write_text(json.dumps({"name": "mlld", "version": version}))
    cli = directory / "dist" / "cli.cjs"
    cli.write_text(program)
    return cli


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / "package.json").write_text("{}")
    for name in ("ask", "other"):
        (folder / f"{name}.mld").write_text(ASK)
    return folder


def asked(desk: Path) -> list[str]:
    log = desk / "calls.log"
    return log.read_text().split() if log.exists() else []


def fake(tmp_path: Path, *, says: bool) -> dict[str, Any]:
    """Give the options of an engine of the 2.1 line, in a package that says where its caches are, or in none."""
    program = tmp_path / "mlld" / "engine_21.py"
    if says:
        install(tmp_path / "mlld", SAYS["2.1.0"])
    else:
        program.parent.mkdir()
    shutil.copy(ENGINE_21, program)
    return {
        "engine": "live",
        "command": sys.executable,
        "command_args": [str(program)],
    }


@contextmanager
def client(options: dict[str, Any], desk: Path) -> Iterator[Client]:
    with Client(**{**options, "working_dir": desk, "timeout": 30}) as made:
        yield made


SAYING = pytest.mark.parametrize("says", [True, False], ids=["a package that says so", "no package"])


@SAYING
def test_resume_forgets_what_it_names_where_the_engine_keeps_it(says: bool, desk: Path, tmp_path: Path) -> None:
    with client(fake(tmp_path, says=says), desk) as owner:
        owner.execute("ask.mld", checkpoint=True)
        assert (desk / ".llm/checkpoints/ask").is_dir()
        owner.execute("ask.mld", resume='@ask("two")')
        assert asked(desk) == ["one", "two", "two"]
        owner.execute("ask.mld", fresh=True, checkpoint=True)
        assert asked(desk) == ["one", "two", "two", "one", "two"]


@SAYING
def test_a_fork_finds_its_source_there_and_leaves_its_copy_there(says: bool, desk: Path, tmp_path: Path) -> None:
    with client(fake(tmp_path, says=says), desk) as owner:
        owner.execute("ask.mld", checkpoint=True)
        owner.execute("other.mld", fork="ask")
        assert asked(desk) == ["one", "two"]
        assert (desk / ".llm/checkpoints/other").is_dir()
        assert not (desk / ".mlld").exists()
        with pytest.raises(CacheNotFound, match="nowhere"):
            owner.execute("other.mld", fork="nowhere")


@SAYING
def test_a_cache_that_an_older_mlld_has_left_misleads_nobody(says: bool, desk: Path, tmp_path: Path) -> None:
    with Client(engine="embedded", working_dir=desk) as older:
        older.execute("ask.mld", checkpoint=True)
    with client(fake(tmp_path, says=says), desk) as owner:
        owner.execute("ask.mld", checkpoint=True)
        assert asked(desk) == ["one", "two"] * 2
        owner.execute("ask.mld", resume='@ask("one")')
        assert asked(desk) == [*["one", "two"] * 2, "one"]
        owner.execute("other.mld", fork="ask")
        assert asked(desk) == [*["one", "two"] * 2, "one"]


def test_what_an_older_mlld_has_paid_for_can_be_forked(desk: Path, tmp_path: Path) -> None:
    with Client(engine="embedded", working_dir=desk) as older:
        older.execute("ask.mld", checkpoint=True)
    with client(fake(tmp_path, says=True), desk) as owner:
        owner.execute("other.mld", fork="ask")
    assert asked(desk) == ["one", "two"]
    assert not (desk / ".mlld/checkpoints/other").exists()


@SAYING
def test_nothing_that_was_stored_for_an_answer_is_served_there(says: bool, desk: Path, tmp_path: Path) -> None:  # C-7
    (desk / "silent").touch()
    with client(fake(tmp_path, says=says), desk) as owner:
        owner.execute("ask.mld", checkpoint=True)
        (desk / "silent").unlink()
        assert "answer to one" in owner.execute("ask.mld", checkpoint=True).output
        assert asked(desk) == ["one", "two"] * 2
        owner.execute("ask.mld", checkpoint=True)
    assert asked(desk) == ["one", "two"] * 2


def test_what_is_not_accepted_is_forgotten_there(desk: Path, tmp_path: Path) -> None:
    class Asking(Agent):
        def run(self, job: Job, payload: Any) -> str:
            again = Retry(attempts=3, delay=0.01)
            return job.execute("ask.mld", retry=again, accept=lambda _: len(asked(desk)) > 4).output

    options = {**fake(tmp_path, says=True), "working_dir": desk, "checkpoint": True}
    with running(one_for_one(child(Asking, name="a", **options)), desk) as (runtime, _):
        assert "answer to two" in runtime["a"].run({}).result(60)
    assert asked(desk) == ["one", "two"] * 3


@pytest.mark.parametrize("kind", [pytest.param("live", marks=needs_real), pytest.param("bridge", marks=needs_real)])
def test_the_package_says_where_the_real_one_keeps_them(kind: str, desk: Path) -> None:
    command, *args = REAL.split()
    place = ".llm/checkpoints" if real_version() > (2, 0, 5) else ".mlld/checkpoints"
    assert cache_place([command, *args, "live", "--stdio"]) == place
    with client({"engine": kind, "command": command, "command_args": args}, desk) as owner:
        owner.execute("ask.mld", checkpoint=True)
        assert (desk / place / "ask").is_dir()
        owner.execute("ask.mld", resume='@ask("two")')
        assert asked(desk) == ["one", "two", "two"]
        owner.execute("other.mld", fork="ask")
    assert asked(desk) == ["one", "two", "two"]
    assert [info.folder for info in Checkpoints(desk).list()] == [str(desk / place / name) for name in ("ask", "other")]


@pytest.mark.parametrize(("version", "place"), [("2.0.5", ".mlld/checkpoints"), ("2.1.0", ".llm/checkpoints")])
def test_the_program_of_a_package_is_asked(version: str, place: str, tmp_path: Path) -> None:
    cli = install(tmp_path / "checkout", SAYS[version], version)
    assert cache_place(["node", "--max-old-space-size=512", str(cli), "live", "--stdio"]) == place
    assert cache_place(["node", "bridge.cjs"], tmp_path / "checkout") == place
    cli.write_text("DEFAULT_CACHE_ROOT = elsewhere();" + " " * len(SAYS[version]))
    assert cache_place(["node", str(cli), "live", "--stdio"]) is None
    cli.unlink()
    assert cache_place(["node", str(cli)], tmp_path / "checkout") is None
    assert cache_place(["no-such-program", "live", "--stdio"]) is None
