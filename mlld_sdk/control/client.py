"""The other side of the control socket: one runtime, asked from another process."""

import contextlib
import os
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from mlld_sdk.base.folders import refuse_foreign
from mlld_sdk.control import protocol as p

LOOK_TIMEOUT = 10.0
"""Seconds in which an answer to a question has to begin that makes the runtime do nothing."""

OWN_FOLDER = "set MLLD_OTP_RUNTIME_DIR to a folder of your own"

JUST_STOPPED = "it may just have stopped; its log says why"

LOOKS = (p.AskWho, p.AskTree, p.AskMissing, p.AskTop, p.AskMetrics, p.AskWhy, p.AskCrashes, p.AskRuns, p.AskRun)


def running(name: str | None = None, pid: int | None = None) -> list[p.RuntimeProcess]:
    """List this user's runtimes that take connections; a socket that a killed process has left is none.

    Args:
        name: Only those of this name.
        pid: Only the one in this process.

    Raises:
        FolderNotPrivate: Another user may have put the sockets where they are.
    """
    refuse_foreign(p.socket_folder())
    asked = [one for one in p.sockets() if name in (None, one.name) and pid in (None, one.pid)]
    return [one for one in asked if p.is_listening(one.path)]


def processes_of(name: str | None = None, pid: int | None = None) -> list[p.RuntimeProcess]:
    """Find the processes of one runtime: one, or several that have the same name.

    Args:
        name: Name of the runtime; not needed when there is only one name.
        pid: Only this process.

    Raises:
        ControlError: There is no such runtime, or there are some of several names.
        FolderNotPrivate: Another user may have put the sockets where they are.
    """
    found = running(name, pid)
    if not found:
        raise _none_of(name, pid)
    names = sorted({one.name for one in found})
    if len(names) > 1:
        raise p.ControlError(f"several runtimes are running: {', '.join(names)}", hint="say which with --runtime NAME")
    return found


class Remote:
    """A connection to a running runtime. Not for several threads at once.

    Args:
        name: Name of the runtime; not needed when there is only one.
        pid: The process, if several have that name.
        patience: Seconds in which an answer has to begin, if not as many as are usual for what is asked.

    Raises:
        ControlError: There is no such runtime, more than one, or another user's process listens there.
        FolderNotPrivate: Another user may have put the sockets where they are.
    """

    def __init__(self, name: str | None = None, *, pid: int | None = None, patience: float | None = None) -> None:
        refuse_foreign(p.socket_folder())
        self._patience = patience
        process = _only_one(name, pid)
        self._connection = socket.socket(socket.AF_UNIX)
        limit = patience or LOOK_TIMEOUT
        try:
            _connect(self._connection, process.path, limit)
            user = p.peer_of(self._connection)[1]
        except BlockingIOError as error:
            self._connection.close()
            what = f"{process} has not taken a connection for {limit:g} s: many others wait at {process.path}"
            raise p.ControlError(what, hint="see which processes these are (`lsof`, `ss -xp`)") from error
        except OSError as error:
            self._connection.close()
            raise p.ControlError(f"{process} does not answer at {process.path}: {error}", hint=JUST_STOPPED) from error
        if user not in (None, os.getuid()):  # nothing is sent to it, and nothing it says is believed
            self._connection.close()
            raise p.ControlError(f"{process.path} belongs to another user (id {user})", hint=OWN_FOLDER)

    def ask(self, request: p.Request) -> Any:  # noqa: ANN401
        """Ask one thing.

        Raises:
            Refused: The runtime says no; `code` and `hint` are its own.
            ControlError: The request cannot be sent, the connection broke, the answer makes no sense, or none came:
                after `LOOK_TIMEOUT` if the runtime was only to be looked at, after a little more than
                `protocol.TIMEOUT` if it was to do something. An answer that has begun may take as long again.
        """
        limit = self._patience or _patience(request)
        self._connection.settimeout(limit)
        try:
            with contextlib.suppress(BrokenPipeError):  # it wants no more, and may have said why
                p.send(self._connection, request)
            body = p.receive(self._connection, limit)
        except TimeoutError as error:
            pid = p.peer_of(self._connection)[0]
            raise p.ControlError(
                f"the runtime{f' (process {pid})' if pid else ''} has not answered for {limit:g} s",
                hint="it is stopped, starved or busy with other clients: see what its process does (`ps`, `top`)",
            ) from error
        except OSError as error:
            raise p.ControlError(f"the runtime has broken the connection: {error}", hint=JUST_STOPPED) from error
        if body is None:
            raise p.ControlError("the runtime has ended the connection", hint=JUST_STOPPED)
        try:
            answer = p.decode_answer(body)
        except RecursionError:
            raise p.ControlError("the runtime's answer is nested too deeply to be read here", code="TOO_DEEP") from None
        except msgspec.MsgspecError as error:
            hint = "are both of the same version?"
            raise p.ControlError(f"the runtime's answer makes no sense: {error}", hint=hint) from None
        if answer.code is not None:
            raise p.Refused(answer.message, code=answer.code, hint=answer.hint)
        return answer.data

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _connect(connection: socket.socket, path: Path, within: float) -> None:
    """Connect. While too many others want to, it waits for its turn in the system's queue, which a retry would lose."""
    seconds, rest = divmod(within, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(rest * 1e6)))
    connection.connect(str(path))


def _patience(request: p.Request) -> float:
    if isinstance(request, p.AskEvents):
        return LOOK_TIMEOUT + request.wait
    return LOOK_TIMEOUT if isinstance(request, LOOKS) else p.TIMEOUT + 5


def _only_one(name: str | None, pid: int | None) -> p.RuntimeProcess:
    if name is not None and pid is not None:
        return p.RuntimeProcess(name, pid)
    first, *others = processes_of(name, pid)
    if others:
        pids = ", ".join(str(one.pid) for one in (first, *others))
        raise p.ControlError(f"several processes run {first.name!r}: {pids}", hint="say which with --pid PID")
    return first


def _none_of(name: str | None, pid: int | None) -> p.ControlError:
    """Say that no such runtime answers, and what may be the reason."""
    folder, left = p.socket_folder(), p.sockets()
    asked = " ".join([*([repr(name)] if name else []), *([f"in process {pid}"] if pid else [])])
    if asked:
        hint = "is it running, as the same user and with the same MLLD_OTP_RUNTIME_DIR? running: "
        hint += ", ".join(map(str, running())) or "none"
        if any(name in (None, one.name) and pid in (None, one.pid) for one in left):
            hint = "it was killed and has left its socket: start it again, its runs go on"
        return p.ControlError(f"no runtime {asked} answers in {folder}", hint=hint)
    killed = ", ".join(sorted({one.name for one in left}))
    return p.ControlError(
        f"no runtime answers in {folder}" + (f"; killed and not started again: {killed}" if killed else ""),
        hint="start one with `mlld-otp run FILE` or control=True; one of another user, or one with another "
        "MLLD_OTP_RUNTIME_DIR or XDG_RUNTIME_DIR, is not seen from here",
    )
