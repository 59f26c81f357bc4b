"""The other side of the control socket: one runtime, asked from another process."""

import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlld_sdk.control import protocol as p


def runtimes() -> list[str]:
    """List the names of this user's runtimes that have a socket; one of a killed process may be among them."""
    return sorted(found.stem for found in p.socket_path("any").parent.glob("*.sock"))


class Remote:
    """A connection to a running runtime. Not for several threads at once.

    Args:
        name: Name of the runtime; not needed when there is only one.
        path: Its socket, instead.

    Raises:
        ControlError: There is no such runtime, or more than one.
    """

    def __init__(self, name: str | None = None, *, path: Path | None = None) -> None:
        self.path = path or p.socket_path(name or _only_one())
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(p.TIMEOUT + 5)
        try:
            self._connection.connect(str(self.path))
        except OSError as error:
            self._connection.close()
            raise p.ControlError(
                f"no runtime answers at {self.path}: {error}", hint="is it running, and as the same user?"
            ) from error

    def ask(self, request: p.Request) -> Any:
        """Ask one thing.

        Raises:
            Refused: The runtime says no; `code` and `hint` are its own.
            ControlError: The connection broke.
        """
        try:
            p.send(self._connection, request)
            body = p.receive(self._connection)
        except OSError as error:
            raise p.ControlError(f"the runtime does not answer: {error}") from error
        if body is None:
            raise p.ControlError("the runtime has ended the connection", hint="it may just have stopped")
        answer = p.decode_answer(body)
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


def _only_one() -> str:
    found = runtimes()
    if len(found) != 1:
        raise p.ControlError(
            "no runtime is running" if not found else f"several runtimes are running: {', '.join(found)}",
            hint="start one, or say which with --runtime NAME",
        )
    return found[0]
