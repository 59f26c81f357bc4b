"""Breaking things of a runtime for real: engines killed, stopped, slow or garbled, actors killed."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace

from mlld_sdk.agents.owner import EngineOwner
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.runtime.runtime import Runtime
from mlld_sdk.transport.engine import Engine


class Chaos:
    """Breaks things for real, and mends what is still broken when it is closed.

    Places are named as in `runtime[name]`: agents and pools, for all their engines; `kill_actor` takes any place.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._stopped: set[int] = set()
        self._healthy: dict[str, Callable[[], Engine]] = {}
        self._bad: dict[str, list[Engine]] = {}

    def kill(self, name: str) -> int:
        """SIGKILL the engines of an agent or pool, and return how many there were."""
        return self._signal(name, signal.SIGKILL)

    def stop(self, name: str) -> int:
        """SIGSTOP them: they live and do nothing, until `resume`."""
        self._stopped.update(self.engines(name))
        return self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> int:
        """SIGCONT them."""
        self._stopped -= set(self.engines(name))
        return self._signal(name, signal.SIGCONT)

    def kill_actor(self, name: str, why: str = "chaos") -> None:
        """Kill the actor at a place, even a busy one; it has no chance to clean up."""
        self._runtime.place(name).ref().kill(why)

    def garble(self, name: str, every: int = 1) -> None:
        """Break every n-th answer of its engines."""
        self.misbehave(name, f"garble-every={every}")

    def slow(self, name: str, seconds: float) -> None:
        """Delay each answer of its engines by so many seconds."""
        self.misbehave(name, f"slow={seconds}")

    def flood(self, name: str, size: str = "1m", *, stderr: bool = False) -> None:
        """Make its engines write noise to the answer channel, or to stderr, at each request."""
        self.misbehave(name, f"flood-{'stderr' if stderr else 'stdout'}={size}")

    def misbehave(self, name: str, how: str) -> None:
        """Replace the engines of an agent or pool by ones that misbehave, until `heal`; idle ones at once.

        Args:
            name: The agent or pool; its engine must be the embedded one.
            how: What they do, as `--misbehave` of the embedded engine takes it: `die-at-request=2,die-with=KILL`.
        """
        path = self._path(name)
        pool = self._runtime.services.engine_pools().get(path)
        owner = self._runtime.place(path).ref().cell.actor
        if pool is None or not isinstance(owner, EngineOwner) or owner.requests.kind != "embedded":
            raise ConfigurationError(
                f"{name} has no embedded engine to misbehave", hint="declare it with engine='embedded', or kill it"
            )
        command = owner.options.engine_command()
        bad = replace(command, environ={**command.environ, "MLLD_EMBEDDED_MISBEHAVE": how})
        services = self._runtime.services

        def start() -> Engine:
            engine = Engine.start(bad, exclusive=True, label=path, env=services.env, sink=services.sink)
            self._bad.setdefault(path, []).append(engine)
            return engine

        self._healthy.setdefault(path, pool.start_engine)
        pool.start_engine = start
        self._end_bad(path)
        pool.sleep_idle(0.0)

    def heal(self, name: str) -> None:
        """Give it well-behaved engines again; those that misbehave are killed, busy ones too."""
        self._heal(self._path(name))

    def engines(self, name: str) -> list[int]:
        """List the process ids of the engines of an agent or pool."""
        path = self._path(name)
        return [one.pid for one in self._runtime.history.engines() if one.engine.rpartition("-")[0] == path]

    def close(self) -> None:
        """Wake what is stopped, and heal what misbehaves."""
        for pid in self._stopped:
            _send(pid, signal.SIGCONT)
        self._stopped.clear()
        for path in list(self._healthy):
            self._heal(path)

    def _heal(self, path: str) -> None:
        pool, healthy = self._runtime.services.engine_pools().get(path), self._healthy.pop(path, None)
        if pool is not None and healthy is not None:
            pool.start_engine = healthy
        self._end_bad(path)

    def _end_bad(self, path: str) -> None:
        for engine in self._bad.pop(path, []):
            engine.kill()

    def _signal(self, name: str, number: signal.Signals) -> int:
        return sum(_send(pid, number) for pid in self.engines(name))

    def _path(self, name: str) -> str:
        return self._runtime.place(name).path


def _send(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except OSError:  # it has gone by itself
        return False
    return True
