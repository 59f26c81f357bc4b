"""Collect once, analyse three times: each analysis starts from the model calls that the collection has paid for."""

from typing import Any

from mlld_sdk import Job, child, one_for_one
from mlld_sdk.agents.agent import Agent
from mlld_sdk.demo.stage import Stage

FIND = """\
exe llm @find(topic) = sh {
  echo "find-$topic" >> calls.log
  sleep 0.4
  echo "facts about $topic"
}
"""
COLLECT = 'for @topic in ["market", "law", "rivals"] => show @find(@topic)\n'
ANALYSE = """\
exe llm @judge(question, facts) = sh {
  echo "judge-$question" >> calls.log
  echo "$question: $facts"
}
var @a = @find("market")
var @b = @find("law")
var @c = @find("rivals")
show @judge(@payload, `@a, @b, @c`)
"""
QUESTIONS = ("risk", "cost", "growth")


class Analyst(Agent):
    """Answers one question from what was collected."""

    checkpoint = True
    fork = "collect"

    def run(self, job: Job, payload: Any) -> str:
        """Judge the facts, which another run may have found."""
        return job.execute(f"analyse-{payload}.mld", payload).output.strip()


def play(stage: Stage) -> str:
    """Collect, then analyse side by side."""
    stage.script("collect.mld", FIND + COLLECT)
    for question in QUESTIONS:
        stage.script(f"analyse-{question}.mld", FIND + ANALYSE)
    tree = one_for_one(
        child(Agent, name="collector", script="collect.mld", checkpoint=True, **stage.options),
        *(child(Analyst, name=question, **stage.options) for question in QUESTIONS),
    )
    with stage.runtime(tree) as runtime:
        stage.tell("collect  three topics, each an expensive call")
        runtime.agent("collector").run().result(stage.patience)
        collected = len(stage.calls())
        stage.tell(f"collect  done, {collected} calls made")
        runs = {question: runtime.agent(question).run(question) for question in QUESTIONS}
        for question, run in runs.items():
            answer = run.result(stage.patience)
            stage.tell(f"analyse  {answer}")
            facts = f"{question}: facts about market, facts about law, facts about rivals"
            stage.prove(f"{question} has the facts", answer == facts)
    made = sorted(stage.calls())
    wanted = sorted(["find-market", "find-law", "find-rivals", *(f"judge-{question}" for question in QUESTIONS)])
    stage.prove(f"nothing was paid for twice: {made}", made == wanted)
    saved = len(QUESTIONS) * collected
    return (
        f"{len(made)} calls were made instead of {len(made) + saved}: three analyses made none of the {collected} "
        "collecting calls again."
    )
