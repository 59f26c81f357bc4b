"""The bridge runs scripts exactly as the live engine of the same package does; it only carries more of the outcome."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.raw_engine import Answer, RawEngine, needs_real, started

pytestmark = needs_real


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RawEngine, RawEngine]]:
    """Run both in one directory: a project with something to import and to read."""
    home = tmp_path_factory.mktemp("project")
    (home / "flows").mkdir()
    (home / "flows" / "lib.mld").write_text(
        'exe @polish(t) = `polished @t`\nvar @tag = "lib"\nexport { @polish, @tag }\n'
    )
    (home / "flows" / "note.txt").write_text("a note\n")
    with ExitStack() as running:
        live, bridge = (running.enter_context(started(kind, home)) for kind in ("live", "bridge"))
        for raw in (live, bridge):
            raw.home = home  # type: ignore[attr-defined]
            raw.ask("hello")
        yield live, bridge


ALL_EVENTS = {"eventMode": "all", "recordEffects": True}
"""The 2.1 line says less unless it is asked; 2.0.5 does not know these."""


def outcome(answer: Answer) -> dict[str, Any]:
    """What both can carry, without what differs by nature (times, debug events, how much security detail is cut)."""
    if "error" in answer.result:
        error = answer.error
        said = {"message": error["message"], "name": error.get("name")}
    else:
        result = answer.result
        said = {
            "output": result["output"],
            "effects": [(effect["type"], effect.get("content"), effect.get("path")) for effect in result["effects"]],
            "exports": sorted(result["exports"]),
            "state": [(write["path"], write["value"]) for write in result["stateWrites"]],
            "denials": [(denial["guard"], denial["operation"], denial["reason"]) for denial in result["denials"]],
        }
    ours = ("debug:", "checkpoint:", "stream:")  # the live engine of the 2.1 line never streams
    return said | {"events": [event["type"] for event in answer.events if not event["type"].startswith(ours)]}


SCRIPTS = {
    "templates": 'var @n = "Ada"\nvar @o = {"a": [1, {"b": 2}]}\nshow `Hi @n`\nshow @o.a\nshow @o.a.1.b\n',
    "loop": "var @r = for @i in [1, 2, 3] => `item @i`\nshow @r\n",
    "parallel": 'var @p = for parallel(2) @i in ["x", "y"] => `got @i`\nshow @p\n',
    "when": 'var @k = "b"\nvar @v = when [ @k == "a" => "first"; @k == "b" => "second"; * => "other" ]\nshow @v\n',
    "commands": "run sh { pwd; echo err >&2 }\nvar @c = cmd { echo hello }\nshow @c\nrun sh { exit 3 }\n",
    "code": "var @x = js { return {a: 1, b: [true, null]} }\nshow @x\n",
    "state": 'output "v" to "state://a"\noutput {"k": 1} to "state://b"\nshow @state.seen\n',
    "logs": 'log "to stderr"\noutput "to stdout" to stdout\nshow "shown"\n',
    "exports": "var @one = 1\nexe @two(p) = `two @p`\nexport { @one, @two }\n",
    "pipeline": 'exe @up(t) = js { return t.toUpperCase() }\nvar @x = "abc" | @up\nshow @x\n',
    "payload": "import { topic } from @payload\nshow `@topic @topic.mx.labels`\n",
    "dynamic": 'import { mode } from "@cfg"\nshow @mode\n',
    "denied": 'guard @no before secret = when [ @mx.op.labels.includes("net:w") => deny "stay"; * => allow ]\n'
    'var secret @t = "x"\nexe net:w @post(b) = sh { echo "$b" }\nshow @post(@t)\n',
    "empty": "",
    "undefined variable": "show @nowhere\n",
    "syntax error": 'var @x = "never closed\n',
    "redefinition": "var @x = 1\nvar @x = 2\n",
    "bail": 'show "before"\nbail "enough"\n',
    "throwing code": 'var @x = js { throw new Error("thrown") }\nshow @x\n',
    "missing import": 'import { x } from "./nowhere.mld"\nshow @x\n',
    "field of nothing": 'var @o = {"a": 1}\nshow @o.b.c\n',
}

PARAMS: dict[str, dict[str, Any]] = {
    "state": {"state": {"seen": 3}},
    "payload": {"payload": {"topic": "safety"}, "payloadLabels": {"topic": ["untrusted"]}},
    "dynamic": {"dynamicModules": {"@cfg": 'var @mode = "fast"\nexport { @mode }\n'}, "dynamicModuleMode": "strict"},
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_text_has_the_same_outcome(engines: tuple[RawEngine, RawEngine], name: str) -> None:
    live, bridge = (engine.run(SCRIPTS[name], **ALL_EVENTS, **PARAMS.get(name, {})) for engine in engines)
    assert outcome(bridge) == outcome(live)
    if "error" in live.result:
        assert bridge.error["code"] == live.error["code"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_file_has_the_same_outcome(engines: tuple[RawEngine, RawEngine], name: str) -> None:
    home: Path = engines[0].home  # type: ignore[attr-defined]
    script = home / "flows" / "script.mld"
    script.write_text(SCRIPTS[name])
    params = {key: value for key, value in PARAMS.get(name, {}).items() if key != "dynamicModuleMode"}
    live, bridge = (
        engine.ask("execute", {"filepath": "flows/script.mld", **ALL_EVENTS, **params}) for engine in engines
    )
    theirs, ours = outcome(live), outcome(bridge)
    if (
        "error" in live.result
    ):  # the live engine calls every failure of a running file ExecuteError; the bridge says its name
        del theirs["name"], ours["name"]
    assert ours == theirs


PLACED = [
    'import { polish, tag } from "./lib.mld"',
    "var @note = <note.txt>",
    "show `@polish(@note) @tag`",
    "run sh { pwd }",
]


@pytest.mark.parametrize("path", ["flows/here.mld", "flows/here.md", "flows/here"])
def test_text_with_a_place_finds_its_neighbours(engines: tuple[RawEngine, RawEngine], path: str) -> None:
    home: Path = engines[0].home  # type: ignore[attr-defined]
    prefix = "" if path.endswith(".mld") else "/"  # the other two are read as markdown
    script = "".join(f"{prefix}{line}\n" for line in PLACED)
    live, bridge = (engine.run(script, filePath=str(home / path), **ALL_EVENTS) for engine in engines)
    assert outcome(bridge) == outcome(live)
    assert "a note" in bridge.output


def test_markdown_is_read_as_markdown(engines: tuple[RawEngine, RawEngine]) -> None:
    script = '# Title\n\nplain text\n\n/var @x = "v"\n/show @x\n'
    live, bridge = (engine.run(script, mode="markdown", **ALL_EVENTS) for engine in engines)
    assert outcome(bridge) == outcome(live)
    assert "plain text" in bridge.output


def test_analysis_is_the_same(engines: tuple[RawEngine, RawEngine]) -> None:
    live, bridge = (engine.ask("analyze", {"filepath": "flows/lib.mld"}).result for engine in engines)
    assert {key: value for key, value in bridge.items() if key != "id"} == {
        key: value for key, value in live.items() if key != "id"
    }
