"""The engine's clocks, without the host's `Env`: the engine starts hundreds of times and imports cost."""

import time

now = time.monotonic
sleep = time.sleep


def milliseconds() -> int:
    """Return the wall clock as events have it."""
    return time.time_ns() // 1_000_000


def iso() -> str:
    """Return the wall clock as rows and manifests have it: ISO text with milliseconds and `Z`."""
    now_ms = milliseconds()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ms // 1000)) + f".{now_ms % 1000:03d}Z"
