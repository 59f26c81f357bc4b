"""A supervised agent inside an asyncio service: requests and runs are awaited, and the loop never waits for an engine.

A ticker runs on the loop beside the work. If anything blocked the loop for one model call, the ticker would miss that
long. A thread ticks, too, and shows how long a busy machine kept the whole process waiting.
"""

import asyncio
import os
import signal
from itertools import pairwise
from typing import Any

from mlld_sdk import Runtime, child, one_for_one
from mlld_sdk.agents.agent import Agent
from mlld_sdk.base.durations import now
from mlld_sdk.demo.stage import DemoFailed, Stage, meanwhile

SCRIPT = """\
exe llm @think(n) = sh {
  echo "$n $PPID" >> calls.log
  sleep 0.8
  echo "thought $n"
}
show @think(@payload)
"""

CALL = 0.8
"""Seconds a model call takes."""

TICK = 0.01
RUNS = 6


class Thinker(Agent):
    """Thinks twice."""

    checkpoint = True
    engines = 3
    concurrency = 3

    async def run(self, job: Any, payload: Any) -> str:
        """Take two steps, one after the other."""
        first = await job.execute("think.mld", f"{payload}-first")
        second = await job.execute("think.mld", f"{payload}-second")
        return str(first.output.strip() + ", " + second.output.strip())


def play(stage: Stage) -> str:
    """Serve, kill an engine, and measure how long the loop was away."""
    stage.script("think.mld", SCRIPT)
    thinker = child(Thinker, name="thinker", **stage.options)
    runtime = stage.runtime(one_for_one(thinker, max_restarts=5, within=10.0), stored=True)
    loop: list[float] = []
    beside: list[float] = []
    with meanwhile(lambda: beside.append(now()), TICK):
        asyncio.run(_serve(stage, runtime, loop))
    away = _longest(loop)
    blocked = away - _longest(beside)
    stage.prove(f"the loop was never away for a model call: {blocked:.2f} s longer than a thread", blocked < CALL)
    stage.prove("the killed engine was noticed", stage.count("child.exited") == 1)
    return (
        f"{RUNS} runs and a request awaited while an engine was killed; the loop ticked {len(loop)} times and was away "
        f"for {away * 1000:.0f} ms at most, while every model call took {CALL * 1000:.0f} ms."
    )


async def _serve(stage: Stage, runtime: Runtime, ticks: list[float]) -> None:
    """What the lifespan of a web application does: start, serve, stop, none of it on the loop."""
    ticking = asyncio.create_task(_tick(ticks))
    await asyncio.to_thread(runtime.start)
    try:
        agent = runtime.agent("thinker")
        runs = [await agent.aio.run(str(n)) for n in range(RUNS)]
        stage.tell(f"serve    {RUNS} runs submitted")
        killer = asyncio.create_task(asyncio.to_thread(_kill, stage))
        try:
            async with asyncio.timeout(stage.patience):
                answers = await asyncio.gather(*runs)
        except TimeoutError:
            raise DemoFailed(f"waited {stage.patience:g} s in vain: all runs are answered") from None
        await killer
        stage.tell(f"serve    {len(answers)} runs answered")
        said = await agent.aio.process('show "and a request beside"')
        stage.tell(f"serve    {said.strip()}")
        stage.prove("all answers are right", answers == [f"thought {n}-first, thought {n}-second" for n in range(RUNS)])
    finally:
        await asyncio.to_thread(runtime.stop)
        ticking.cancel()


async def _tick(ticks: list[float]) -> None:
    while True:
        ticks.append(now())
        await asyncio.sleep(TICK)


def _longest(ticks: list[float]) -> float:
    return max((after - before for before, after in pairwise(ticks)), default=0.0)


def _kill(stage: Stage) -> None:
    calls = stage.calls_made(RUNS // 2)
    stage.tell("KILL     an engine that is in the middle of a call")
    os.kill(int(calls[-1].split()[1]), signal.SIGKILL)
