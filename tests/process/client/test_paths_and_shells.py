"""Which files a script may reach, and what a value can do to a command: as with the real engine, or refused."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mlld_sdk import Client
from mlld_sdk.errors import ScriptError
from tests.support.clients import Make, engine, make_client

__all__ = ["engine", "make_client"]


class Project(NamedTuple):
    """A project, and what lies outside of it."""

    root: Path
    outside: Path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root, outside = tmp_path / "project", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (root / "package.json").write_text("{}")
    for folder, word in ((root, "INSIDE"), (outside, "SECRET")):
        (folder / "note.txt").write_text(word)
        (folder / "lib.mld").write_text(f"var @v = `{word}`\nexport {{ @v }}\n")
    (root / "link.txt").symlink_to(outside / "note.txt")
    (root / "link.mld").symlink_to(outside / "lib.mld")
    (root / "folder").symlink_to(outside)
    (root / "new.txt").symlink_to(outside / "new.txt")
    return Project(root, outside)


def read(path: str) -> str:
    return f"var @a = <{path}>\nshow @a"


def load(path: str) -> str:
    return f'import {{ @v }} from "{path}"\nshow @v'


def write(path: str, verb: str = "output") -> str:
    return f'{verb} `SECRET` to "{path}"\nshow "done"'


OUTSIDE = {
    "a file by its absolute path": lambda p: read(f"{p.outside}/note.txt"),
    "a file of the system": lambda p: read("/etc/passwd"),
    "a file above": lambda p: read("../../outside/note.txt"),
    "a file above the base": lambda p: read("@base/../outside/note.txt"),
    "a file through a link": lambda p: read("../link.txt"),
    "a file in a folder that is a link": lambda p: read("../folder/note.txt"),
    "a file in a text": lambda p: f"show `<{p.outside}/note.txt>`",
    "a file that need not be there": lambda p: f"var @a = <{p.outside}/note.txt>?\nshow `@a`",
    "a file a value names": lambda p: read("@payload.outside"),
    "a module by its absolute path": lambda p: load(f"{p.outside}/lib.mld"),
    "a module above": lambda p: load("../../outside/lib.mld"),
    "a module through a link": lambda p: load("../link.mld"),
    "output to an absolute path": lambda p: write(f"{p.outside}/new.txt"),
    "output above": lambda p: write("../../outside/new.txt"),
    "output through a link": lambda p: write("../new.txt"),
    "output into a folder that is a link": lambda p: write("../folder/new.txt"),
    "output to where a value says": lambda p: write("@payload.new"),
    "append to an absolute path": lambda p: write(f"{p.outside}/new.txt", "append"),
    "append above": lambda p: write("../../outside/new.txt", "append"),
}
"""Scripts in `sub/` of the project that reach out of it."""

INSIDE = {
    "a file": lambda p: read("../note.txt"),
    "a file by its absolute path": lambda p: read(f"{p.root}/note.txt"),
    "a file below the base": lambda p: read("@base/note.txt"),
    "a module": lambda p: load("../lib.mld"),
    "output": lambda p: write("../made/here.txt") + '\nvar @a = <../made/here.txt>\nshow "INSIDE"',
}


def came_of(client: Client, project: Project, script: str, **options: Any) -> str:
    values = {"outside": f"{project.outside}/note.txt", "new": f"{project.outside}/new.txt"}
    file = project.root / "sub" / "script.mld"
    return client.process(script, file_path=file, payload=values, **options)


REAL = [pytest.param(kind, marks=pytest.mark.real) for kind in ("live", "bridge")]


@pytest.mark.parametrize("engine", REAL, indirect=True)
@pytest.mark.parametrize("allowed", [None, True, False])
def test_the_real_engine_lets_scripts_out_of_the_project_whatever_it_is_told(
    allowed: bool | None, make_client: Make, project: Project
) -> None:
    client, new = make_client(working_dir=project.root), project.outside / "new.txt"
    options = {} if allowed is None else {"allow_absolute_paths": allowed}
    for what, script in OUTSIDE.items():
        came = came_of(client, project, script(project), **options)
        assert "SECRET" in came or "root:" in came or new.read_text().strip() == "SECRET", what
        new.unlink(missing_ok=True)


@pytest.mark.parametrize("allowed", [None, True])
@pytest.mark.parametrize("what", OUTSIDE)
def test_the_embedded_engine_does_as_the_real_one_unless_it_is_told_not_to(
    what: str, allowed: bool | None, project: Project
) -> None:
    options = {} if allowed is None else {"allow_absolute_paths": allowed}
    with Client(engine="embedded", working_dir=project.root) as client:
        came = came_of(client, project, OUTSIDE[what](project), **options)
    assert "SECRET" in came or "root:" in came or (project.outside / "new.txt").read_text().strip() == "SECRET"


@pytest.mark.parametrize("what", OUTSIDE)
def test_the_embedded_engine_refuses_to_leave_the_project_before_it_has_read_or_written(
    what: str, project: Project
) -> None:
    before = sorted(project.outside.iterdir())
    with Client(engine="embedded", working_dir=project.root) as client:
        with pytest.raises(ScriptError, match="is outside the project") as caught:
            came_of(client, project, OUTSIDE[what](project), allow_absolute_paths=False)
        assert caught.value.code == "PATH_OUTSIDE_PROJECT"
    assert sorted(project.outside.iterdir()) == before


@pytest.mark.parametrize("what", INSIDE)
def test_scripts_that_stay_in_the_project_are_not_hindered(what: str, make_client: Make, project: Project) -> None:
    client = make_client(working_dir=project.root)
    assert "INSIDE" in came_of(client, project, INSIDE[what](project), allow_absolute_paths=False)


def test_the_script_itself_may_lie_anywhere_and_stays_where_it_lies(make_client: Make, project: Project) -> None:
    script = project.outside / "script.mld"
    script.write_text(read("note.txt"))
    client = make_client(working_dir=project.root)
    for file in (script, "../outside/script.mld"):
        assert client.execute(file, allow_absolute_paths=False).output == "SECRET\n"


def test_the_host_writes_no_file_outside_for_a_script_that_has_to_stay_inside(project: Project) -> None:
    (project.root / "wait.mld").write_text("run sh { sleep 60 }\n")
    with Client(engine="embedded", working_dir=project.root) as client:
        call = client.execute_async("wait.mld", allow_absolute_paths=False)
        for path in (str(project.outside / "by-host.txt"), "folder/by-host.txt"):
            with pytest.raises(ScriptError, match="is outside the project"):
                call.write_file(path, "x")
        assert call.write_file("by-host.txt", "x").relative_path == "by-host.txt"
        call.cancel()
    assert not (project.outside / "by-host.txt").exists()


def test_with_the_habits_of_the_real_engine_nothing_is_refused(project: Project) -> None:
    with Client(engine="embedded", command_args=["--like-real"], working_dir=project.root) as client:
        script = OUTSIDE["a file above"](project)
        assert came_of(client, project, script, allow_absolute_paths=False) == "SECRET\n"


COMMANDS = {
    "a pipe": ("a | tr a b", "b", "a | tr a b"),
    "a second line": ("a\necho b", "a\n\nb", "a\n\necho b"),
    "a file to write": ("a > made.txt", "", "a > made.txt"),
    "a file to read": ("a < package.json", "a", "a < package.json"),
    "a comment": ("a # b", "a", "a # b"),
    "blanks": ("a   b", "a b", "a   b"),
    "a pattern": ("no*thing", "no*thing", "no*thing"),
    "a variable": ("$HOME", "$HOME", "$HOME"),
    "a command": ("`echo b`", "`echo b`", "`echo b`"),
    "a background": ("a & echo b", None, "a & echo b"),
    "a sequence": ("a; echo b", None, "a; echo b"),
    "an and": ("a && echo b", None, "a && echo b"),
    "an or": ("a || echo b", None, "a || echo b"),
}
"""What a value holds, what `cmd { echo @n }` gives for it (None: it is refused), and what with quotes around."""


def test_what_a_value_does_to_a_command_is_the_same_on_each_engine(make_client: Make, project: Project) -> None:
    client = make_client(working_dir=project.root)
    script = 'exe @bare(n) = cmd { echo @n }\nexe @quoted(n) = cmd { echo "@n" }\nshow @%s(@payload.n)'
    for what, (value, bare, quoted) in COMMANDS.items():
        came = client.process(script % "bare", payload={"n": value})
        if bare is None:
            assert "is not allowed in cmd { } commands" in came, what
        else:
            assert came == f"{bare}\n", what
        assert client.process(script % "quoted", payload={"n": value}) == f"{quoted}\n", what
    assert (project.root / "made.txt").exists()


def test_a_shell_block_takes_values_for_what_they_are(make_client: Make, project: Project) -> None:
    client = make_client(working_dir=project.root)
    script = "exe @say(n) = sh { printf '%s' \"$n\" | wc -c }\nshow @say(@payload.n)"
    for what, (value, _, _) in COMMANDS.items():
        assert client.process(script, payload={"n": value}).strip() == str(len(value)), what
    assert not (project.root / "made.txt").exists()
