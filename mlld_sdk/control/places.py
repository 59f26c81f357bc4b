"""The places of clients at a control socket: whoever has no request at work makes room for those that come."""

import contextlib
import socket
import threading

from mlld_sdk.base.durations import Deadline, now

GRACE = 0.5
"""Seconds a client may hold a place without a whole request, also when others wait for one."""


class ClientPlaces:
    """Who is connected.

    A client works while its request is answered. It rests before its request is there as a whole, and from then on when
    the answer is made: it is connected and says nothing, sends a byte now and then, or does not read. When no place is
    left, the one that has rested for longest makes room for the next.

    Args:
        most: How many there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._working: set[socket.socket] = set()
        self._resting: dict[socket.socket, float] = {}  # since when; longest first
        self._changed = threading.Condition()
        self._closed = False

    def take(self, client: socket.socket, within: float) -> bool:
        """Give a client a place, or return `False` if none has become free in so many seconds."""
        deadline = Deadline(within)
        with self._changed:
            while not self._closed:
                if len(self._working) + len(self._resting) < self._most:
                    self._resting[client] = now()
                    return True
                wait = deadline.left
                if self._resting:
                    longest, since = next(iter(self._resting.items()))
                    grace = since + GRACE - now()
                    if grace <= 0:
                        del self._resting[longest]
                        _end(longest)
                        continue
                    wait = min(wait, grace)
                if deadline.is_over:
                    return False
                self._changed.wait(wait)
        return False

    def work(self, client: socket.socket) -> bool:
        """Note that a client's request is answered from now on; `False` if it has made room for another."""
        with self._changed:
            if self._resting.pop(client, None) is None:
                return False
            self._working.add(client)
        return True

    def rest(self, client: socket.socket) -> None:
        """Note that the answer to a client is made."""
        with self._changed:
            self._working.remove(client)
            self._resting[client] = now()
            self._changed.notify_all()

    def leave(self, client: socket.socket) -> None:
        """Take back the place of a client, if it still has one."""
        with self._changed:
            self._working.discard(client)
            self._resting.pop(client, None)
            self._changed.notify_all()

    def close(self) -> None:
        """End all connections and give out no more places."""
        with self._changed:
            self._closed = True
            for client in self.clients():
                _end(client)
            self._changed.notify_all()

    def clients(self) -> list[socket.socket]:
        """List who is connected; takes no lock, as is needed after a fork."""
        return [*self._working, *self._resting]


def _end(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
