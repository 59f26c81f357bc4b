"""What the transport tells: engines starting and ending, noise on their protocol channel, requests, orphans."""

from mlld_sdk.base.events import Event


class EngineStarted(Event, frozen=True, kw_only=True, tag="engine.started"):
    """A process was started. It has not answered anything yet.

    Attributes:
        engine: Label of the engine: whose it is, and a number.
        pid: Its process, which leads a session and group of its own.
        command: What was started.
    """

    engine: str
    pid: int
    command: str


class EngineExited(Event, frozen=True, kw_only=True, tag="engine.exited"):
    """A process was reaped and its whole process group killed.

    Attributes:
        engine: Label of the engine.
        pid: The process.
        reason: `closed`, `killed`, `cancelled`, `timeout` when this side ended it; `died` when it went by itself.
        code: Exit status, if it exited by itself.
        signal: Number of the signal that ended it, if one did.
        out_of_memory: The kernel has killed a process for memory just then, or node's heap was full.
        doubtful: A wrapper stood in between, so an exit status of 0 proves nothing.
        in_flight: How many requests it took with it.
        stderr_tail: Its last words, bounded.
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
    """The first line that is no protocol came from an engine; later ones are only counted (`Engine.stats`).

    Attributes:
        engine: Label of the engine.
        pid: Its process.
        line: The line, cut.
    """

    engine: str
    pid: int
    line: str


class RequestFinished(Event, frozen=True, kw_only=True, tag="request.finished"):
    """A request got its outcome.

    Attributes:
        engine: Label of the engine.
        method: What was asked, as the protocol calls it.
        outcome: `ok`, or the code of the error.
        seconds: From submission to outcome.
        bytes: Size of the answer line.
    """

    engine: str
    method: str
    outcome: str
    seconds: float
    bytes: int = 0


class EngineCallbackFailed(Event, frozen=True, kw_only=True, tag="engine.callback_failed"):
    """A callback of an engine or a call raised; nothing else was disturbed by it.

    Attributes:
        engine: Label of the engine.
        where: Which kind of function: `on_events`, `done-callback`, ...
        error: What it raised.
    """

    engine: str
    where: str
    error: str


class OrphansSwept(Event, frozen=True, kw_only=True, tag="orphans.swept"):
    """Processes of hosts that are gone were found and killed, their temporary directories removed.

    Attributes:
        pids: The processes.
        directories: The directories.
    """

    pids: tuple[int, ...]
    directories: tuple[str, ...] = ()
