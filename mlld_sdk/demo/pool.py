"""A pool of twenty engines, five more under load, and engines that are killed while they work."""

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from random import Random

from mlld_sdk import InfrastructureError, Pool, PoolHandle, child, one_for_one
from mlld_sdk.demo.stage import Stage, meanwhile

SCRIPT = """\
exe llm @work(n) = sh {
  echo "$n $PPID" >> calls.log
  sleep 0.15
  echo "done $n"
}
show @work(@payload)
"""

SIZE, OVERFLOW = 20, 5
REQUESTS = 300
CALLERS = 40
KILLS = 10


def play(stage: Stage) -> str:
    """Work through the requests with more callers than engines, and kill engines meanwhile."""
    stage.script("work.mld", SCRIPT)
    pool = child(Pool, name="workers", **stage.options, size=SIZE, overflow=OVERFLOW)
    lost: list[str] = []
    lived: list[int] = []

    def ask(n: int) -> str:
        while True:
            try:
                return handle.execute("work.mld", str(n)).output.strip()
            except InfrastructureError as error:
                lost.append(error.message)  # the caller decides to ask again: this work is harmless

    with stage.runtime(one_for_one(pool)) as runtime:
        handle = runtime.pool("workers")
        stage.tell(f"load     {REQUESTS} requests from {CALLERS} callers on {SIZE} engines and {OVERFLOW} more")
        with meanwhile(lambda: lived.append(_living(handle))), ThreadPoolExecutor(CALLERS) as callers:
            answers = callers.map(ask, range(REQUESTS))
            killed = _kill(stage, runtime.env.random)
            found = list(answers)
        peak = max(lived)
        engines = stage.wait("the overflow is gone", lambda: _settled(handle))
        stage.tell(f"load     done; at most {peak} engines at once, {engines} idle now, {len(lost)} requests lost")
    stage.prove("every request was answered, in order", found == [f"done {n}" for n in range(REQUESTS)])
    stage.prove(f"never more than {SIZE + OVERFLOW} engines: {peak}", SIZE < peak <= SIZE + OVERFLOW)
    stage.prove(f"{killed} kills cost at most as many requests: {lost}", killed == KILLS and len(lost) <= killed)
    stage.prove("the pool itself never crashed", stage.count("child.exited") == 0)
    return (
        f"{REQUESTS} requests answered although {killed} engines were killed; {len(lost)} were lost with their engine "
        f"and asked again, no other caller noticed, and never more than {peak} engines lived."
    )


def _kill(stage: Stage, dice: Random) -> int:
    """Kill engines that are at work, spread over the load."""
    dead: set[str] = set()
    for turn in range(1, KILLS + 1):
        calls = stage.calls_made(turn * REQUESTS // (KILLS + 2))
        pid = dice.choice([pid for pid in {line.split()[1] for line in calls[-SIZE:]} if pid not in dead])
        dead.add(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    return len(dead)


def _living(pool: PoolHandle) -> int:
    status = pool.status().engines
    return status.busy + status.idle


def _settled(pool: PoolHandle) -> int:
    status = pool.status().engines
    return status.idle if status.busy == 0 and status.idle <= SIZE else 0
