"""What the transport tells: engines starting and ending, noise on their protocol channel, requests, orphans."""

from mlld_sdk.events import Event


class EngineStarted(Event, frozen=True, kw_only=True, tag="engine.started"):
    """A process was started. It has not answered anything yet."""

    engine: str
    pid: int
    command: str


class EngineExited(Event, frozen=True, kw_only=True, tag="engine.exited"):
    """A process was reaped and its whole process group killed.

    Attributes:
        reason: `closed`, `killed`, `cancelled`, `timeout` when this side ended it; `died` when it went by itself.
        in_flight: How many requests it took with it.
    """

    engine: str
    pid: int
    reason: str
    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    doubtful: bool = False
    in_flight: int = 0
    stderr_tail: str = ""


class EnginePolluted(Event, frozen=True, kw_only=True, tag="engine.polluted"):
    """The first line that is no protocol came from an engine; later ones are only counted (`Engine.stats`)."""

    engine: str
    pid: int
    line: str


class RequestFinished(Event, frozen=True, kw_only=True, tag="request.finished"):
    """A request got its outcome.

    Attributes:
        outcome: `ok`, or the code of the error.
        seconds: From submission to outcome.
        bytes: Size of the answer line.
    """

    engine: str
    method: str
    outcome: str
    seconds: float
    bytes: int = 0


class CallbackFailed(Event, frozen=True, kw_only=True, tag="engine.callback_failed"):
    """A function somebody attached to an engine or a call raised; it was not felt by anything else."""

    engine: str
    where: str
    error: str


class OrphansSwept(Event, frozen=True, kw_only=True, tag="orphans.swept"):
    """Processes of hosts that are gone were found and killed, their temporary directories removed."""

    pids: tuple[int, ...]
    directories: tuple[str, ...] = ()
