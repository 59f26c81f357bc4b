"""Misbehaving on command, so that tests, chaos runs and demos can see what becomes of the engine's owner.

Each key does one thing; `docs/embedded.md` lists them. Without keys this does nothing.
"""

import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import NoReturn

from mlld_sdk.transport.embedded import clock
from mlld_sdk.transport.embedded.server.options import BadOptions

SIZES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
SIGNALS = ("KILL", "ABRT", "SEGV", "HUP", "QUIT")
FLOOD_LINE = b"x" * 79 + b"\n"
KEYS = (
    "refuse-to-start", "start-delay", "die-at-request", "die-at-step", "die-after-step", "die-with", "hang-at-request",
    "hang-at-step", "stop-reading-after", "flood-stdout", "flood-stderr", "garble-every", "glue-every", "split-lines",
    "forge-id", "slow", "leak", "ignore-sigterm", "ignore-eof", "orphans", "once",
)  # fmt: skip
WORDS = frozenset(("die-with", "forge-id", "orphans", "once", "ignore-sigterm", "ignore-eof"))
SIZED = frozenset(("flood-stdout", "flood-stderr", "leak"))


def size(text: str) -> int:
    """Read `64k`, `10m` or a number of bytes."""
    unit = SIZES.get(text[-1:].lower(), 1)
    return int(text.rstrip("kKmMgG")) * unit


class Misbehaviour:
    """What was asked for, by key, and how far it has come."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        unknown = [key for key in keys if key not in KEYS]
        if unknown:
            raise BadOptions(f"unknown misbehaviour: {unknown[0]}\nknown: {', '.join(KEYS)}")
        how = keys.get("die-with", "1")
        if not how.isdigit() and how.upper() not in SIGNALS:
            raise BadOptions(f"die-with={how} is neither an exit code nor a signal\nsignals: {', '.join(SIGNALS)}")
        self._keys = dict(keys) if self._first_time(keys.get("once")) else {}
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._kept: list[bytes] = []
        try:
            self._numbers = {key: float(value) for key, value in self._keys.items() if key not in WORDS | SIZED}
            self._sizes = {key: size(value) for key, value in self._keys.items() if key in SIZED}
        except ValueError as error:
            raise BadOptions(f"not a number in --misbehave: {error}\nuse KEY=NUMBER") from None

    @staticmethod
    def _first_time(path: str | None) -> bool:
        if path is None:
            return True
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            return False
        return True

    def __bool__(self) -> bool:
        return bool(self._keys)

    def asks(self, key: str) -> bool:
        """Return whether a misbehaviour without a number was asked for."""
        return key in self._keys

    def _count(self, what: str) -> int:
        with self._lock:
            self._counts[what] = self._counts.get(what, 0) + 1
            return self._counts[what]

    def _due(self, key: str, count: int) -> bool:
        return key in self._numbers and count == int(self._numbers[key])

    def start(self) -> None:
        """Act before anything is read."""
        if "refuse-to-start" in self._keys:
            sys.stderr.write("embedded engine: refusing to start, as asked\nremove refuse-to-start from --misbehave\n")
            sys.stderr.flush()
            os._exit(int(self._numbers["refuse-to-start"]))
        clock.sleep(self._numbers.get("start-delay", 0.0))

    def line_read(self) -> None:
        """Act on a line that was read."""
        if self._count("lines read") > self._numbers.get("stop-reading-after", math.inf):
            hang()

    def request(self, write: Callable[[bytes], None]) -> None:
        """Act on a script that is about to run; `write` puts bytes on the answer channel."""
        count = self._count("requests")
        if self._due("die-at-request", count):
            self.die()
        if count >= self._numbers.get("hang-at-request", math.inf):
            hang()
        _pour(write, self._sizes.get("flood-stdout", 0))
        _pour(lambda data: _write_all(2, data), self._sizes.get("flood-stderr", 0))
        if "leak" in self._sizes:
            self._kept.append(os.urandom(1024) * (self._sizes["leak"] // 1024))
        if "orphans" in self._keys:
            _leave_orphan(own_session=self._keys["orphans"] == "setsid")

    def step(self) -> None:
        """Act before the body of an llm call is run."""
        count = self._count("steps")
        if self._due("die-at-step", count):
            self.die()
        if self._due("hang-at-step", count):
            hang()

    def stored(self) -> None:
        """Act when the answer of an llm call has been stored."""
        if self._due("die-after-step", self._count("stored")):
            self.die()

    def die(self) -> NoReturn:
        """End the process the way that was asked for."""
        how = self._keys.get("die-with", "1")
        if how.isdigit():
            os._exit(int(how))
        number = getattr(signal, f"SIG{how.upper()}")
        os.kill(os.getpid(), number)
        hang()

    def line_out(self, line: bytes, write: Callable[[bytes], None]) -> None:
        """Write an answer line, or what is left of it."""
        count = self._count("lines written")
        if count == 1 and "forge-id" in self._keys:
            text = self._keys["forge-id"]
            number = text if text.lstrip("-").isdigit() else f'"{text}"'
            rest = '"output":"forged\\n","effects":[],"exports":{},"stateWrites":[],"denials":[]}}'
            write(f'{{"result":{{"id":{number},{rest}\n'.encode())
        clock.sleep(self._numbers.get("slow", 0.0))
        if self._every("garble-every", count):
            line = line[: len(line) // 2].replace(b'"', b"'") + b"\n"
        if self._every("glue-every", count):
            line = b"NO-NEWLINE " + line
        piece = int(self._numbers.get("split-lines", 0))
        for at in range(0, len(line), piece or len(line)):
            write(line[at : at + (piece or len(line))])
            if piece:
                clock.sleep(0.0005)

    def _every(self, key: str, count: int) -> bool:
        return key in self._numbers and count % max(1, int(self._numbers[key])) == 0


def hang() -> NoReturn:
    """Wait for ever."""
    while True:
        threading.Event().wait()


def _pour(write: Callable[[bytes], None], amount: int) -> None:
    block = FLOOD_LINE * 800
    while amount > 0:
        write(block[: min(amount, len(block))])
        amount -= len(block)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _leave_orphan(*, own_session: bool) -> None:
    import subprocess

    null = subprocess.DEVNULL
    subprocess.Popen(["sleep", "300"], stdin=null, stdout=null, stderr=null, start_new_session=own_session)
