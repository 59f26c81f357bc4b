"""Keeps a broken command from being started over and over."""

from collections.abc import Callable

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import InfrastructureError
from mlld_sdk.transport.engine import Engine

FIRST_DELAY = 0.1
"""Seconds until the next start after two engines in a row died before they had answered anything; then it doubles."""

LONGEST_DELAY = 30.0
"""Seconds the delay grows to."""


class EngineCoolingDown(InfrastructureError):
    """The engine keeps dying before it answers, so the next one is not started yet.

    Attributes:
        retry_after: Seconds until it may be.
        deaths: Engines that died so in a row.
    """

    code = "ENGINE_COOLING_DOWN"

    def __init__(self, retry_after: float, deaths: int, last_words: str) -> None:
        said = f"; the last one said: {last_words}" if last_words else ""
        super().__init__(
            f"the engine died {deaths} times in a row before it answered anything{said}",
            hint=f"check the command; the next start is possible in {retry_after:.1f} s",
        )
        self.retry_after = retry_after
        self.deaths = deaths


class StartGate:
    """Starts engines by a function, unless the last ones died at once and a delay is not over. Thread-safe."""

    def __init__(self, start: Callable[[], Engine], env: Env) -> None:
        self._start = start
        self._env = env
        self._not_before = 0.0
        self._last_words = ""
        self.deaths = 0

    def __call__(self) -> Engine:
        """Start an engine.

        Raises:
            EngineCoolingDown: It is too early.
        """
        left = self._not_before - self._env.now()
        if left > 0:
            raise EngineCoolingDown(left, self.deaths, self._last_words)
        engine = self._start()
        engine.add_exit_callback(self._ended)
        return engine

    def _ended(self, engine: Engine) -> None:
        if engine.has_worked:
            self.deaths, self._not_before = 0, 0.0
            return
        ended = engine.exit
        if ended is not None and ended.expected and not ended.code:  # by us: closed, or killed for a call
            return
        lines = engine.stderr_tail.strip().splitlines()
        self._last_words = lines[-1][:200] if lines else ""
        if self.deaths:  # once may be a script that ended the engine before it had said a word
            self._not_before = self._env.now() + min(LONGEST_DELAY, FIRST_DELAY * 2 ** (self.deaths - 1))
        self.deaths = min(self.deaths + 1, 32)
