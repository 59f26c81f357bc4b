"""Supervised agents in a FastAPI service: topics come in over HTTP, reviews go out, and no worker's death loses one.

    pip install fastapi 'mlld-otp[web,prometheus]'
    MLLD_ENGINE=embedded uvicorn examples.fastapi_service:app --workers 2
    curl localhost:8000/reviews/1 -H 'content-type: application/json' -d '"safety"'    # {"run": "run-..."}
    curl localhost:8000/runs/run-...

`kill -9` a worker while it works: another goes on with its runs, and uvicorn starts a new worker.
"""

from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, HTTPException

from mlld_sdk import Agent, AsyncJob, Runtime, child, one_for_one
from mlld_sdk.errors import RunNotFound
from mlld_sdk.web import current, health, lifespan


class Reviewer(Agent):
    """Reviews a topic; several at a time."""

    checkpoint = True
    working_dir = str(Path(__file__).with_name("flows"))
    engines = 4
    concurrency = 4

    async def run(self, job: AsyncJob, payload: dict[str, Any]) -> str:
        """Execute the script as one durable step."""
        return (await job.execute("review.mld", payload)).output.strip()


tree = one_for_one(child(Reviewer), max_restarts=3, within=5.0)

app = FastAPI(
    lifespan=lifespan(tree, store="state.db", name="reviews", control=True, log="json", exit_on_give_up=True),
)
app.include_router(health())  # /healthz, /readyz, /metrics

Reviews = Annotated[Runtime, Depends(current)]


@app.post("/reviews/{review}", status_code=202)
async def submit(review: str, topic: Annotated[str, Body()], runtime: Reviews) -> dict[str, str]:
    """Durable when this returns; the same review again is the same run."""
    run = await runtime.agent("reviewer").aio.run({"topic": topic}, key=review)
    return {"run": run.id}


@app.get("/runs/{run_id}")
def look(run_id: str, runtime: Reviews) -> dict[str, Any]:
    """Where it stands, whichever worker has it."""
    try:
        run = runtime.run(run_id)
    except RunNotFound as error:
        raise HTTPException(404, error.message) from error
    return {"state": run.state, "result": run.result(timeout=0) if run.state == "finished" else None}
