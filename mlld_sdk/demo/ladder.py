"""A wedged agent: it is alive, has work, and finishes nothing. It is killed, and after that climbs to a stronger model.

The small model never answers the hard question. What was finished before the agent got stuck stays finished: the demo
counts the calls that were really made.
"""

from typing import Any

from mlld_sdk import Job, child, one_for_one, wedge
from mlld_sdk.agents.agent import Agent
from mlld_sdk.demo.stage import DemoFailed, Stage
from mlld_sdk.journal.errors import WaitTimeout

SCRIPT = """\
exe llm @ask(question) = sh {
  echo "$MODEL $question" >> calls.log
  if [ "$MODEL $question" = "small hard" ]; then sleep 600; fi
  echo "$question answered by $MODEL"
}
show @ask(@payload)
"""

STUCK_AFTER = 1.2
TIMES = 2


class Questioner(Agent):
    """Answers questions one after the other, with the model its engine was given."""

    checkpoint = True

    def run(self, job: Job, payload: Any) -> list[str]:
        """Ask; the questions are the same at every attempt, whichever model answers."""
        return [job.execute("ask.mld", question).output.strip() for question in payload]


def play(stage: Stage) -> str:
    """Ask an easy question, a hard one and a last one."""
    stage.script("ask.mld", SCRIPT)
    thinker = child(
        Questioner,
        name="thinker",
        **stage.options,
        environ={"MODEL": "small"},
        wedge=wedge(STUCK_AFTER * stage.pace, times=TIMES, ladder=[{"environ": {"MODEL": "large"}}]),
    )
    with stage.runtime(one_for_one(thinker, max_restarts=10, within=30.0), stored=True) as runtime:
        stage.tell(f"ask      three questions; no progress for {STUCK_AFTER * stage.pace:g} s counts as stuck")
        try:
            answers = runtime.agent("thinker").run(["easy", "hard", "last"]).result(stage.patience)
        except WaitTimeout:
            raise DemoFailed("the agent is stuck and nothing is done about it") from None
        for answer in answers:
            stage.tell(f"answer   {answer}")
        stage.show(runtime.tree())
    models = [answer.split()[-1] for answer in answers]
    stage.prove(f"answers come from both models: {answers}", models == ["small", "large", "large"])
    stage.prove(f"it was found stuck {TIMES} times", stage.count("child.wedged") == TIMES)
    calls = stage.calls()
    killed = calls.count("small hard")  # a kill may come before the call it ends, on a busy machine
    wanted = ["small easy", *["small hard"] * killed, "large hard", "large last"]
    stage.prove(f"calls made: {calls}", killed <= TIMES and calls == wanted)
    return (
        f"stuck {TIMES} times on the small model, then the large one answered; the question finished before was not "
        f"asked again ({len(calls)} calls for 3 questions, {killed} of them killed)."
    )
