"""What can be chosen about a journal, with the defaults and their reasons."""

from typing import Literal, get_args

import msgspec

from mlld_sdk.base.durations import seconds
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.base.options import one_of, whole

Durability = Literal["full", "normal"]
"""`full` survives a power cut; `normal` every crash of the program, but a power cut may take its last moments."""

OnInterrupt = Literal["fail", "retry"]


class StepPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with a step that was begun and never finished.

    Attributes:
        on_interrupt: `fail`: refuse to repeat it, by name. `retry`: it may run twice, because it is idempotent or the
            engine keeps its own checkpoints.
        max_attempts: How often the step may be begun in all, the first time included: 1 means never again.
    """

    on_interrupt: OnInterrupt = "fail"
    max_attempts: int = 3

    def __post_init__(self) -> None:
        one_of("on_interrupt", self.on_interrupt, *get_args(OnInterrupt))
        whole("max_attempts", self.max_attempts, least=1)


class JournalLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How large things may become. Each limit is a refusal with a name, never a silent cut.

    Attributes:
        value_bytes: One input, result or outcome, encoded.
        steps_per_run: Steps of one run.
        events_per_run: Receipts kept for one run; one more is refused.
        events: Events kept in the common stream; the oldest are dropped.
        error_chars: Text kept of one error (message and traceback each); the rest is cut and marked.
        max_deaths: Owners a run, or one step of it, may take down without progress before the run is parked.
        queued_writes: Writes waiting for the writer; callers beyond it wait, up to `write_timeout`.
        write_timeout: Seconds a write may wait for its turn, the disk and other processes.
        replay_bytes: Finished steps held in memory while a run resumes; beyond it they are read one by one.
    """

    value_bytes: int = 16 * 1024 * 1024
    steps_per_run: int = 1_000_000
    events_per_run: int = 10_000
    events: int = 100_000
    error_chars: int = 16_000
    max_deaths: int = 5
    queued_writes: int = 10_000
    write_timeout: float = 30.0
    replay_bytes: int = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if name == "write_timeout":
                seconds(self.write_timeout, name, above=0)
            else:
                whole(name, getattr(self, name), least=1)


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Which ended runs are kept. Runs that have not ended, parked ones among them, are never pruned.

    Attributes:
        keep_last: Ended runs to keep for each kind, or `None` for all.
        older_than: Seconds since its end after which a run may go, or `None` for any age.
            With both given, a run goes only if both say so.
    """

    keep_last: int | None = 10_000
    older_than: float | None = None

    def __post_init__(self) -> None:
        if self.keep_last is None and self.older_than is None:
            raise ConfigurationError("keep_last and older_than are both None", hint="use retention=None to keep all")
        if self.keep_last is not None:
            whole("keep_last", self.keep_last)
        seconds(self.older_than, "older_than")
