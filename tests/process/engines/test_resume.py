"""Killed in the middle, retried: what was finished is not done again, on every engine and from one to another."""

import json
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.raw_engine import ALL, REAL, Answer, RawEngine, real_version, started

PROMPTS = ["1", "2", "3", "4", "5", "6"]

SEQUENTIAL = (
    "".join(f'var @a{prompt} = @ask("{prompt}")\n' for prompt in PROMPTS)
    + "show `"
    + " ".join(f"@a{prompt}" for prompt in PROMPTS)
    + "`\n"
)
PARALLEL = f"var @all = for parallel(2) @p in {json.dumps(PROMPTS)} => @ask(@p)\nshow @all\n"


CACHES = ".llm/checkpoints" if REAL and real_version() > (2, 0, 5) else ".mlld/checkpoints"
"""Where the live engine keeps its caches: it cannot be told, so the others are."""


class Pipeline:
    """Six llm calls. Each says that it began, waits until its gate is open, says that it finished, and answers."""

    def __init__(self, directory: Path, body: str) -> None:
        self.directory = directory
        self.script = directory / "pipe.mld"
        self.gates = directory / "gates"
        self.gates.mkdir()
        self.script.write_text(
            'exe llm @ask(p) = sh { echo "$p" >> began; while [ ! -e "gates/$p" ]; do sleep 0.02; done; '
            f'echo "$p" >> finished; echo "answer $p" }}\n{body}'
        )

    def open(self, *prompts: str) -> None:
        for prompt in prompts:
            (self.gates / prompt).touch()

    def read(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().split() if path.exists() else []

    @property
    def stored(self) -> int:
        index = self.directory / CACHES / "pipe" / "llm-cache.jsonl"
        return len(index.read_text().splitlines()) if index.exists() else 0

    def send(self, engine: RawEngine, kind: str) -> object:
        """Start it so that finished calls are stored and served, in the way this engine has for it."""
        if kind != "live":
            params = {"filepath": str(self.script), "checkpoint": True, "checkpointRoot": CACHES}
            return engine.send("execute", params)
        text = "resume: auto\n" + self.script.read_text()
        return engine.send("process", {"filePath": str(self.script), "script": text, "mode": "strict"})


def run(pipeline: Pipeline, kind: str) -> tuple[list[str], Answer]:
    """Run it to its end on a new engine; return the calls that were made for it, and the answer."""
    before = len(pipeline.read("began"))
    with started(kind, pipeline.directory) as engine:
        answer = engine.answer(pipeline.send(engine, kind))
    return pipeline.read("began")[before:], answer


@pytest.mark.parametrize("then", ALL)
@pytest.mark.parametrize("first", ALL)
@pytest.mark.parametrize("body", [pytest.param(SEQUENTIAL, id="sequential"), pytest.param(PARALLEL, id="parallel")])
def test_a_pipeline_killed_in_its_fourth_call_goes_on_there(tmp_path: Path, body: str, first: str, then: str) -> None:
    pipeline = Pipeline(tmp_path, body)
    pipeline.open("1", "2", "3")
    with started(first, tmp_path) as engine:
        pipeline.send(engine, first)
        eventually(lambda: pipeline.stored == 3 and "4" in pipeline.read("began"), within=60)
        engine.kill()
    assert sorted(pipeline.read("finished")) == ["1", "2", "3"]

    pipeline.open("4", "5", "6")
    made, answer = run(pipeline, then)
    assert sorted(made) == ["4", "5", "6"]
    assert sorted(pipeline.read("finished")) == PROMPTS  # nothing was done twice

    for prompt in PROMPTS:
        assert f"answer {prompt}" in answer.output
    again, same = run(pipeline, first)
    assert again == []
    assert same.output == answer.output


@pytest.mark.parametrize("kind", ALL)
def test_a_pipeline_that_failed_late_keeps_what_it_had(tmp_path: Path, kind: str) -> None:
    pipeline = Pipeline(tmp_path, SEQUENTIAL + "show @missing\n")
    pipeline.open(*PROMPTS)
    made, answer = run(pipeline, kind)
    assert made == PROMPTS
    assert "missing" in answer.error["message"]
    text = pipeline.script.read_text()
    pipeline.script.write_text(text.replace("show @missing\n", 'show "repaired"\n'))
    again, answer = run(pipeline, kind)
    assert again == []
    assert "repaired" in answer.output
