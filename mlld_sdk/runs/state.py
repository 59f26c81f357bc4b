"""What a job shares: with its branches, whether they may still act; with other jobs, what the runtime has for them."""

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from mlld_sdk.base.env import Env
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Sink
from mlld_sdk.engines.draining import AnySource
from mlld_sdk.journal import Journal
from mlld_sdk.runs.failures import Owner
from mlld_sdk.supervision.breaker import Permit

LONGEST_LOOK = 60.0
"""Seconds between two looks at the wall clock, which may be set while a job waits for it."""


@dataclass(frozen=True, slots=True)
class RunServices:
    """The journal and what goes with it.

    Attributes:
        journal: The runs.
        env: Clocks and chance.
        sink: Takes events.
    """

    journal: Journal
    env: Env
    sink: Sink
    _unsettled: deque[Callable[[], None]] = field(default_factory=deque)

    def settle_later(self, write: Callable[[], None]) -> None:
        """Keep the end of a run's ownership until the journal takes it; `write` may come back here."""
        self._unsettled.append(write)

    def settle_again(self) -> None:
        """Try once to write what could not be written."""
        for _ in range(len(self._unsettled)):
            self._unsettled.popleft()()


class JobState:
    """What a job and all its branches share: whether they may still act, and their waiting on purpose.

    Attributes:
        sealed: Why they may not.
        unanswered: What the journal said that no code can answer.
        progressed: Monotonic seconds at which a step last ended or progress was last said.
        sleeping: How many threads and tasks sleep.
        awake: Set when sleeping is over for good.
        owner: The agent.
    """

    def __init__(self, source: AnySource, env: Env, owner: Owner) -> None:
        self.owner = owner
        self.sealed: MlldError | None = None
        self.unanswered: MlldError | None = None
        self.progressed = env.now()
        self.sleeping = 0
        self.awake = threading.Event()
        self._interrupt: Callable[[], None] | None = None
        self._woken: set[Callable[[], object]] = set()
        self._permits: set[Permit] = set()
        self._env = env
        self._source = source
        self._lock = threading.Lock()

    @property
    def broken(self) -> MlldError | None:
        """What ended the job before its code did, or has to, even if that code swallowed the error."""
        return self.sealed or self.unanswered

    def seal(self, why: MlldError) -> None:
        """Refuse further steps of the job and its branches with `why`, and end what they have under way on engines."""
        with self._lock:
            if self.sealed is not None:
                return
            self.sealed = why
            permits = list(self._permits)
        for permit in permits:  # what comes of these calls is not waited for
            permit.withdraw()
        self.wake()
        self._source.stop(why)
        if self._interrupt is not None:
            self._interrupt()

    def interrupting(self, interrupt: Callable[[], None] | None) -> None:
        """Set what is called when the job is sealed, to wake its code; at once if it is sealed already."""
        self._interrupt = interrupt
        if interrupt is not None and self.sealed is not None:
            interrupt()

    def wake(self) -> None:
        """End all sleeping for good."""
        with self._lock:
            self.awake.set()
            woken = list(self._woken)
        for wake in woken:
            wake()

    @contextlib.contextmanager
    def telling(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call `wake()` when sleeping is over for good, at once if it is."""
        with self._lock:
            self._woken.add(wake)
            over = self.awake.is_set()
        if over:
            wake()
        try:
            yield
        finally:
            with self._lock:
                self._woken.discard(wake)

    @contextlib.contextmanager
    def holding(self, permit: Permit) -> Iterator[None]:
        """Give a permit back at the end of this block, or when the job is sealed, if nothing was reported by then."""
        with self._lock:
            self._permits.add(permit)
        try:
            yield
        finally:
            with self._lock:
                self._permits.discard(permit)
            permit.withdraw()

    def sleep(self, moment: float, most: float = math.inf) -> None:
        """Wait until a moment of the wall clock, as `naps` says, on this thread."""
        bell = threading.Event()
        with self.telling(bell.set), contextlib.closing(self.naps(moment, most, bell.set)) as naps:
            for seconds in naps:
                bell.wait(seconds)
                bell.clear()

    def naps(self, moment: float, most: float, ring: Callable[[], object]) -> Generator[float, None, None]:
        """Yield how long to wait, again and again until a moment of the wall clock, which a run's next owner shares.

        It is over after `most` seconds, and when `awake` is set. The job counts as sleeping while this is iterated.
        `ring` is called when the clock was moved and it is time to go on.
        """
        unwatch = self._env.watch(ring)  # before the first look at the clock, so that no move is missed
        latest = self._env.now() + most
        with self._lock:
            self.sleeping += 1
        try:
            while not self.awake.is_set():
                left = min(moment - self._env.wall(), latest - self._env.now())
                if left <= 0:
                    return
                yield self._env.real(min(left, LONGEST_LOOK))
        finally:
            unwatch()
            self.progressed = self._env.now()  # first: whoever looks at this moment sees it awake or making progress
            with self._lock:
                self.sleeping -= 1
