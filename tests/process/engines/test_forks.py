"""Collect once, analyse many times: each agent starts from what another has paid for."""

from pathlib import Path
from typing import Any

import pytest

from mlld_sdk import Agent, Job, child, one_for_one
from mlld_sdk.base.events import name_of
from tests.support.agents import ENGINES, calls, engine_options, running

FIND = """\
exe llm @find(topic) = sh {
  echo "find-$topic" >> calls.log
  echo "facts about $topic"
}
"""
COLLECT = FIND + 'for @topic in ["a", "b", "c"] => show @find(@topic)\n'
ANALYSE = (
    FIND
    + """\
exe llm @judge(question, facts) = sh {
  echo "judge-$question" >> calls.log
  echo "$question: $facts"
}
var @a = @find("a")
var @b = @find("b")
show @judge(@payload.question, `@a, @b`)
"""
)


class Analyst(Agent):
    checkpoint = True

    def run(self, job: Job, payload: dict[str, Any]) -> str:
        return job.execute(f"analyse-{payload['question']}.mld", payload, fork="collect").output


@pytest.mark.parametrize("engine", ENGINES)
def test_three_analyses_are_seeded_from_one_collection(engine: str, tmp_path: Path) -> None:
    (tmp_path / "collect.mld").write_text(COLLECT)
    questions = ["risk", "cost", "law"]
    for question in questions:
        (tmp_path / f"analyse-{question}.mld").write_text(ANALYSE)
    options = {**engine_options(engine), "working_dir": tmp_path, "checkpoint": True}
    tree = one_for_one(
        child(Agent, name="collector", script="collect.mld", **options),
        *(child(Analyst, name=question, **options) for question in questions),
    )
    with running(tree, tmp_path) as (runtime, seen):
        runtime["collector"].run().result(60)
        runs = [runtime[question].run({"question": question}) for question in questions]
        assert [run.result(60) for run in runs] == [
            f"{question}: facts about a, facts about b\n" for question in questions
        ]
    made = calls(tmp_path)
    assert sorted(made) == sorted([*("find-a", "find-b", "find-c"), *(f"judge-{question}" for question in questions)])
    if engine != "live":
        assert [name_of(event) for event in seen].count("checkpoint.hit") == 6


def test_an_agent_may_fork_by_declaration_and_keep_its_cache_to_itself(tmp_path: Path) -> None:
    (tmp_path / "collect.mld").write_text(COLLECT)
    (tmp_path / "again.mld").write_text(COLLECT)
    options: dict[str, Any] = {"engine": "embedded", "working_dir": tmp_path}
    tree = one_for_one(
        child(Agent, name="collector", script="collect.mld", checkpoint=True, **options),
        child(Agent, name="forked", script="again.mld", checkpoint=True, fork="collect", **options),
        child(Agent, name="alone", script="collect.mld", checkpoint="isolated", **options),
    )
    with running(tree, tmp_path) as (runtime, _):
        for name, paid in (("collector", 3), ("forked", 3), ("alone", 6), ("alone", 6)):
            runtime[name].run().result(60)
            assert len(calls(tmp_path)) == paid, name
