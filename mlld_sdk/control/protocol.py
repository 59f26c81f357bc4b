"""What can be asked of a running runtime from outside: typed requests and answers, in frames of bounded size."""

import os
import socket
import struct
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from mlld_sdk.base.durations import Deadline
from mlld_sdk.base.errors import InfrastructureError, MlldError
from mlld_sdk.base.texts import encoded, text_of, text_of_error

MAX_FRAME: Final = 8 << 20
"""Bytes of one request or answer; a longer one ends the connection."""

TIMEOUT: Final = 30.0
"""Seconds a frame may take from its first byte to its last; a request may take as long from there to its answer."""


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask"):
    """Base of all requests."""


class AskWho(Request, frozen=True, kw_only=True, tag="who"):
    """Which runtime this is, in which process, and where its runs are."""


class AskTree(Request, frozen=True, kw_only=True, tag="tree"):
    """The tree as a value, its verdict, and its printout."""


class AskMissing(Request, frozen=True, kw_only=True, tag="missing"):
    """Agents that are not in the tree and that runs wait for."""


class AskTop(Request, frozen=True, kw_only=True, tag="top"):
    """Engines with their memory, agents with their work, journal and budget."""


class AskMetrics(Request, frozen=True, kw_only=True, tag="metrics"):
    """What the process measures of the runtime, as plain data."""


class AskWhy(Request, frozen=True, kw_only=True, tag="why"):
    """Everything known about one failure, or about the failures of one place.

    Attributes:
        subject: A crash id, or a path.
    """

    subject: str


class AskEvents(Request, frozen=True, kw_only=True, tag="events"):
    """Events from a number on.

    Attributes:
        after: The number behind which to begin; negative: so many from the end.
        wait: Seconds to wait for news when there is none.
    """

    after: int = -100
    wait: float = 0.0


class AskCrashes(Request, frozen=True, kw_only=True, tag="crashes"):
    """Crash reports, newest first.

    Attributes:
        path: Only of this place and below.
        since: Only newer than this many seconds ago.
        limit: At most so many.
    """

    path: str | None = None
    since: float | None = None
    limit: int = 50


class AskRuns(Request, frozen=True, kw_only=True, tag="runs"):
    """Runs, newest first.

    Attributes:
        states: Only these states.
        agent: Only of this agent.
        before: Only those submitted before this run.
        limit: At most so many.
    """

    states: tuple[str, ...] = ()
    agent: str | None = None
    before: str | None = None
    limit: int = 100


class AskRun(Request, frozen=True, kw_only=True, tag="run"):
    """One run with its steps."""

    run_id: str


class RetryRun(Request, frozen=True, kw_only=True, tag="run.retry"):
    """Put a run back into the queue.

    Attributes:
        run_id: The run.
        rerun_interrupted: Also repeat steps that were not declared harmless.
    """

    run_id: str
    rerun_interrupted: bool = False


class CancelRun(Request, frozen=True, kw_only=True, tag="run.cancel"):
    """End a run."""

    run_id: str
    reason: str


class ResolveStep(Request, frozen=True, kw_only=True, tag="run.resolve"):
    """Record what an interrupted step gave.

    Attributes:
        run_id: The run.
        position: The step.
        value: What it gave.
    """

    run_id: str
    position: str
    value: Any = None


class SubmitRun(Request, frozen=True, kw_only=True, tag="run.submit"):
    """Submit a run to an agent."""

    agent: str
    payload: Any = None
    key: str | None = None


class Operate(Request, frozen=True, kw_only=True, tag="operate"):
    """Do something to a place in the tree.

    Attributes:
        what: `pause` stops it and keeps it stopped, `resume` starts it again, `restart` does both, `drain` lets it
            finish its runs and take no more.
        path: The place.
        reason: Why; shown in the tree and kept in the events.
    """

    what: Literal["pause", "resume", "restart", "drain"]
    path: str
    reason: str = ""


class Evaluate(Request, frozen=True, kw_only=True, tag="evaluate"):
    """Run a line of mlld on an agent's engine."""

    agent: str
    script: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a request.

    Attributes:
        data: The answer, if there is one.
        code: Stable name of the failure, if it failed.
        message: The failure in one line.
        hint: What to do about it.
    """

    data: Any = None
    code: str | None = None
    message: str = ""
    hint: str | None = None


class ControlError(InfrastructureError):
    """The runtime cannot be talked to: it is not there, is another user's, or its answer makes no sense."""

    code = "CONTROL_ERROR"


class Refused(MlldError):
    """The runtime refused or failed a request; `code` is its own."""

    code = "REFUSED"


_LENGTH = struct.Struct(">I")
decode_answer = msgspec.json.Decoder(Answer).decode
_encode = partial(encoded, msgspec.json.Encoder(enc_hook=text_of))


class RuntimeProcess(msgspec.Struct, frozen=True, order=True):
    """A process in which a runtime listens, or has listened before it was killed.

    Attributes:
        name: Name of the runtime; several processes may run one of that name.
        pid: The process.
    """

    name: str
    pid: int

    @property
    def path(self) -> Path:
        """The socket."""
        return socket_path(self.name, self.pid)

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def socket_folder() -> Path:
    """Return the folder of all sockets, which is this user's alone."""
    base = os.environ.get("MLLD_OTP_RUNTIME_DIR") or os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"mlld-otp-{os.getuid()}"


def socket_path(name: str, pid: int | None = None) -> Path:
    """Return the path of the socket of a runtime in a process, in this one unless told otherwise."""
    return socket_folder() / f"{name}.{os.getpid() if pid is None else pid}.sock"


def sockets() -> list[RuntimeProcess]:
    """List whose sockets there are, also those that were left by processes that were killed."""
    found = [path.stem.rpartition(".") for path in socket_folder().glob("*.sock")]
    return sorted(RuntimeProcess(name, int(pid)) for name, _, pid in found if name and pid.isdecimal())


def is_listening(path: Path) -> bool:
    """Return whether a process takes connections at a socket, even if it is too busy or stopped to answer."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # it has as many waiting as it takes
            return True
        except OSError:
            return False
        return True


def peer_of(connection: socket.socket) -> tuple[int | None, int | None]:
    """Return which process and which user is at the other end, where the system tells."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None, None
    pid, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return int(pid), int(user)


def send(connection: socket.socket, message: Request | Answer) -> None:
    """Write one frame.

    Raises:
        ControlError: The message cannot be written as one; nothing was sent.
    """
    connection.sendall(frame(message))


def frame(message: Request | Answer) -> bytes:
    """Return a message as it is sent.

    Raises:
        ControlError: It is too large (`TOO_LARGE`), nested too deeply (`TOO_DEEP`), or no JSON for another reason.
    """
    what = "the answer" if isinstance(message, Answer) else "the request"
    try:
        body = _encode(message)
    except RecursionError:
        raise ControlError(f"{what} is nested too deeply", code="TOO_DEEP", hint="nest it less deeply") from None
    except Exception as error:  # noqa: BLE001 - values of users are in it
        raise ControlError(f"{what} cannot be written as JSON: {text_of_error(error)}", code="UNWRITABLE") from None
    if len(body) > MAX_FRAME:
        raise ControlError(f"{what} has {len(body)} bytes, allowed are {MAX_FRAME}", code="TOO_LARGE")
    return _LENGTH.pack(len(body)) + body


def receive(connection: socket.socket, within: float = TIMEOUT) -> bytes | None:
    """Read one frame; `None` when the other side has ended the connection.

    Args:
        connection: Waits for the first byte as long as its own timeout says, which is another one afterwards.
        within: Seconds from the first byte to the last.

    Raises:
        ControlError: The frame is too long, or ends in the middle.
        TimeoutError: It did not begin, or did not end, in time.
    """
    first = connection.recv(1)
    if not first:
        return None
    deadline = Deadline(within)
    (length,) = _LENGTH.unpack(first + _exactly(connection, _LENGTH.size - 1, deadline))
    if length > MAX_FRAME:
        raise ControlError(f"a frame of {length} bytes was announced, allowed are {MAX_FRAME}")
    return _exactly(connection, length, deadline)


def _exactly(connection: socket.socket, count: int, deadline: Deadline) -> bytes:
    found = bytearray()
    while len(found) < count:
        if not (left := deadline.left):
            raise TimeoutError("the frame did not end in time")
        connection.settimeout(left)
        piece = connection.recv(min(count - len(found), 1 << 16))
        if not piece:
            raise ControlError("the connection ended in the middle of a frame")
        found += piece
    return bytes(found)
