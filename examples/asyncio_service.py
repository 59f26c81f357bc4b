"""A supervised agent inside an asyncio service. Each line a client sends is a topic, each answer a review of it.

    MLLD_ENGINE=embedded python examples/asyncio_service.py --port 8080
    echo safety | nc localhost 8080

For FastAPI and Starlette see `fastapi_service.py`. When the runtime gives up, the service ends with status 1, so that
whatever has started it can start it again.
"""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from mlld_sdk import Agent, AsyncJob, MlldError, Runtime, child, one_for_one

FLOWS = Path(__file__).with_name("flows")


class Reviewer(Agent):
    """Reviews a topic; several at a time."""

    checkpoint = True
    working_dir = str(FLOWS)
    engines = 4
    concurrency = 4

    async def run(self, job: AsyncJob, payload: dict[str, Any]) -> str:
        """Execute the script as one durable step."""
        return (await job.execute("review.mld", payload)).output.strip()


async def serve(runtime: Runtime, port: int) -> None:
    """Answer until told to stop. Nothing here blocks the loop."""
    reviewer = runtime.agent("reviewer").aio

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).decode().strip():
            try:
                run = await reviewer.run({"topic": line})
                said = await asyncio.wait_for(run, 60)
            except (MlldError, TimeoutError) as error:
                said = f"sorry: {error}"
            writer.write(f"{said}\n".encode())
            await writer.drain()
        writer.close()

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ends = asyncio.create_task(runtime.aio.wait(None))
    ends.add_done_callback(lambda _: stop.set())
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await stop.wait()
    ends.cancel()


async def main() -> int:
    """Start the runtime, serve, stop it, and return the exit status."""
    words = argparse.ArgumentParser()
    words.add_argument("--port", type=int, default=8080)
    options = words.parse_args()
    async with Runtime(one_for_one(child(Reviewer), max_restarts=3, within=5.0), store="state.db") as runtime:
        await serve(runtime, options.port)
    end = await runtime.aio.wait(0)
    return 1 if end is not None and end.gave_up else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
