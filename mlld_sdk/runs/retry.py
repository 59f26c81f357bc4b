"""When a step that has failed is tried again: a pure decision, made from what the journal keeps of the failure.

Nothing is drawn by chance at the moment of the failure, so the next owner of the run, after a restart of the service
too, comes to the same time for the next attempt.
"""

import math
import random
from datetime import timedelta
from typing import Any, Final

import msgspec

from mlld_sdk.base.errors import ConfigurationError, InvalidOption
from mlld_sdk.base.options import number, whole
from mlld_sdk.journal.errors import JournalRefusal
from mlld_sdk.scripts.answers import TruncatedResult

HOPELESS: Final = (ConfigurationError, JournalRefusal, TruncatedResult)
"""Failures that asking again would only bring back."""


YEAR: Final = 365 * 86400


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often and when a step that fails is tried again: `job.step("fetch", fetch, url, retry=Retry(attempts=3))`.

    It is about failures that are answers: an exception of the step's function, a script that fails, a `timeout` that
    passes, another agent that is down. Each is written down with the number of the attempt before the next one is
    waited for. What ends the agent (an engine of its own that dies, a service that is killed) is no answer:
    `idempotent` says whether such a step may run again.

    Attributes:
        attempts: How often the step is begun in all. Interrupted attempts count.
        delay: Seconds between the first failure and the second attempt.
        factor: Growth of the delay from attempt to attempt.
        longest: Seconds that no delay exceeds.
        jitter: Part of a delay that differs from step to step: `d` becomes something in `[d * (1 - jitter), d]`.
        on: Errors after which it is tried again: classes, or one. Wrong options, results that cannot be stored or were
            cut are never tried again, even if they are named here.
    """

    attempts: int = 5
    delay: float = 1.0
    factor: float = 2.0
    longest: float = 60.0
    jitter: float = 0.5
    on: Any = (Exception,)

    def __post_init__(self) -> None:
        for name in ("delay", "longest"):
            value = getattr(self, name)
            if isinstance(value, timedelta):
                msgspec.structs.force_setattr(self, name, value.total_seconds())
        on = self.on if isinstance(self.on, tuple | list) else (self.on,)
        msgspec.structs.force_setattr(self, "on", tuple(on))
        whole("attempts", self.attempts, least=1)
        for name, least, most in (("delay", 0, YEAR), ("factor", 1, 1000), ("longest", 0, YEAR), ("jitter", 0, 1)):
            number(name, getattr(self, name), least, most)
        if not self.on or not all(isinstance(one, type) and issubclass(one, BaseException) for one in self.on):
            raise InvalidOption("on", self.on, "exception classes")

    def wants(self, attempt: int, error: BaseException) -> bool:
        """Decide whether a step is tried again, now that an attempt of it has failed."""
        return attempt < self.attempts and isinstance(error, self.on) and not isinstance(error, HOPELESS)

    def pause(self, attempt: int, which: str) -> float:
        """Return the seconds between the failure of an attempt and the next one; the same whenever it is called.

        Args:
            attempt: Number of the attempt that failed, from 1.
            which: Tells steps apart, so that those that failed together are not tried again together.
        """
        if self.delay <= 0:
            return 0.0
        # Past this many steps the limit rules; computing the power could overflow.
        most = attempt if self.factor == 1 else int(math.log(max(self.longest / self.delay, 1), self.factor)) + 1
        raw = min(self.delay * self.factor ** min(attempt - 1, most), self.longest)
        return float(raw * (1 - self.jitter * random.Random(f"{which}/{attempt}").random()))  # noqa: S311 - no secret
