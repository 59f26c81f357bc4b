"""A flapping engine: backoff spreads the restarts, and the circuit breaker keeps callers away until it works again.

The script kills its own engine for as long as a file named `broken` is there. What reached an engine is counted in
`calls.log`, so the demo can prove that refused requests reached no engine.
"""

from mlld_sdk import AgentHandle, Backoff, InfrastructureError, Runtime, child, circuit_breaker, one_for_one
from mlld_sdk.agents.agent import Agent
from mlld_sdk.demo.picture import Story
from mlld_sdk.demo.stage import DemoFailed, Stage
from mlld_sdk.supervision.errors import BreakerOpen
from mlld_sdk.supervision.snapshot import shorten

SCRIPT = """\
exe @ask() = sh {
  echo called >> calls.log
  if [ -e broken ]; then kill -KILL $PPID; fi
  echo "an answer"
}
show @ask()
"""

FAILURES = 3
CALLERS = 1000
BREAKER = ["breaker.opened", "breaker.half_opened", "breaker.opened", "breaker.half_opened", "breaker.closed"]


def play(stage: Stage) -> str:
    """Break the engine, be refused, try too early, mend it, and be served again."""
    stage.script("ask.mld", SCRIPT)
    broken = stage.directory / "broken"
    flaky = child(
        Agent,
        name="flaky",
        **stage.options,
        backoff=Backoff.of(0.05, most=0.4, jitter=0.0, min_uptime=10.0),
        breaker=circuit_breaker(failures=FAILURES, open_for=0.6, growth=2.0),
    )
    story = stage.story = Story("A flapping engine and the circuit breaker in front of it", 11, "answers")
    story.turn("breaker", "closed", 0.0)
    with stage.runtime(one_for_one(flaky, max_restarts=20, within=10.0)) as runtime:
        agent = runtime.agent("flaky")
        stage.tell(f"answer   {agent.execute('ask.mld').output.strip()}")
        story.progress.append(stage.now())

        broken.touch()
        stage.tell("BREAK    from now on every call kills the engine")
        for number in range(1, FAILURES + 1):
            _fail(stage, agent)
            _back(stage, number + 1)
        first = _refused(agent)
        reached = len(stage.calls())
        refused = sum(isinstance(_ask(agent), BreakerOpen) for _ in range(CALLERS))
        stage.tell(f"refused  {refused} of {CALLERS} callers, each at once; try again in {first:.2f} s")
        stage.prove("an open breaker refuses every caller", refused == CALLERS)
        stage.prove("a refused call reaches no engine", len(stage.calls()) == reached)
        stage.show(runtime.tree())

        stage.wait("the breaker is half-open", lambda: _half_open(runtime))
        _fail(stage, agent)  # the probe meets an engine that is still broken
        stage.wait("the breaker opens again", lambda: stage.count("breaker.opened") == 2)
        _back(stage, FAILURES + 2)
        second = _refused(agent)
        stage.prove("it stays open for longer the second time", second > first)

        broken.unlink()
        stage.tell("MEND     the engine works again")
        stage.wait("the breaker is half-open again", lambda: _half_open(runtime))
        for _ in range(10):
            agent.execute("ask.mld")
            story.progress.append(stage.now())
        story.end = stage.now()
    made = len(stage.calls())
    breaker = [name for name in stage.named() if name.startswith("breaker.")]
    stage.prove(f"the breaker went {breaker}", breaker == BREAKER)
    delays = [round(wait, 2) for event in stage.events if (wait := getattr(event, "next_attempt_in", None))]
    delays = delays[:FAILURES]
    stage.prove(f"delays grow: {delays}", len(delays) == FAILURES and delays == sorted(set(delays)))
    stage.prove("every call was counted", made == 1 + FAILURES + 1 + 10)
    waits = ", ".join(f"{delay:g}" for delay in delays)
    return (
        f"{CALLERS} callers were refused while it was broken and none of them reached an engine; "
        f"only {FAILURES + 1} calls were lost, restarts waited {waits} s, and it closed by itself."
    )


def _ask(agent: AgentHandle) -> InfrastructureError:
    """Ask the broken engine and return the error."""
    try:
        agent.execute("ask.mld")
    except InfrastructureError as error:
        return error
    raise DemoFailed("the broken engine answered")


def _fail(stage: Stage, agent: AgentHandle) -> None:
    error = _ask(agent)
    stage.prove(f"the call is let through: {error.message}", not isinstance(error, BreakerOpen))
    stage.tell(f"lost     {shorten(error.message, 90)}")


def _back(stage: Stage, incarnation: int) -> None:
    stage.wait("the agent is restarted", lambda: stage.count("child.started") == incarnation)


def _refused(agent: AgentHandle) -> float:
    """Ask once, be refused, and return after how many seconds it may be tried again."""
    error = _ask(agent)
    if isinstance(error, BreakerOpen):
        return error.retry_after
    raise DemoFailed(f"the breaker let a call through: {error.message}") from error


def _half_open(runtime: Runtime) -> bool:
    guard = runtime.place("flaky").breaker()
    return guard is None or guard.view().status == "half_open"
