"""A mailbox: two lanes, a limit with a policy, and a close after which nothing is lost in silence.

How it stays correct without a lock of its own on the way in:

- Both lanes are `SimpleQueue`s. Putting in and taking out are atomic, so a killer may empty them while the consumer
  is still at work: each entry is taken by exactly one of them.
- `_idle` is a lock used as a flag: held while the mailbox is scheduled or being worked on. A sender that gets it
  schedules the owner. A consumer that found nothing lets go and looks again.
- Closing comes first and emptying afterwards. A sender that slipped in between either gets the flag (and schedules
  one more run, which empties) or sees the close after its put and empties the mailbox itself.
"""

from _thread import RLock, allocate_lock
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal

from mlld_sdk.actors.core.context import context, current_cell
from mlld_sdk.actors.core.errors import ActorDead, MailboxFull
from mlld_sdk.base.durations import LONGEST_WAIT, Deadline

if TYPE_CHECKING:
    from mlld_sdk.actors.core.future import Future

Entry = tuple[Any, "Future[Any] | None"]
"""A message and the future that wants its answer, if any."""

Overflow = Literal["refuse", "drop_newest", "drop_oldest", "block"]
OVERFLOWS: Final = ("refuse", "drop_newest", "drop_oldest", "block")


class SystemMessage:
    """Something for the runtime itself to do between two messages of the actor."""

    __slots__ = ()

    def refuse(self, why: ActorDead) -> None:
        """Answer whoever waits for this, because the actor ended first."""


class Mailbox:
    """Where an actor's messages wait; `schedule(self)` is called when there is something to do."""

    __slots__ = ("_idle", "_room", "_system", "_user", "alarm", "limit", "schedule")

    def __init__(self, schedule: Callable[[Any], object], limit: int | None = None) -> None:
        self._user: SimpleQueue[Entry] = SimpleQueue()
        self._system: SimpleQueue[SystemMessage] | None = None
        self._room: list[Callable[[], object]] | None = None
        self._idle = allocate_lock()
        self.schedule = schedule
        self.limit = limit
        self.alarm = False
        """Set when the consumer must look up between two messages: the system lane has something, or it is dead."""

    # -- what the owner says

    def is_closed(self) -> bool:
        """Whether nothing is taken in any more."""
        raise NotImplementedError

    def dead(self) -> ActorDead:
        """Make the error for those whose message will not be handled."""
        raise NotImplementedError

    def overflow_policy(self) -> tuple[Overflow, float]:
        """Say what to do beyond the limit, and for how long a sender may be blocked."""
        return "refuse", 0.0

    def overflowed(self) -> None:
        """Be told that the limit was reached."""

    def undelivered(self, message: Any) -> None:
        """Be told of a message that nobody will handle and nobody waits for."""

    # -- putting in

    def post(self, entry: Entry) -> None:
        """Put a message in.

        Raises:
            ActorDead: It is closed.
            MailboxFull: It is full and refuses, or stayed full for as long as the sender may be blocked.
        """
        if self.is_closed():
            raise self.dead()
        if self.limit is not None and self._user.qsize() >= self.limit and not self.make_room(entry):
            return
        self.post_always(entry)

    def post_always(self, entry: Entry) -> None:
        """Put a message in whatever the limit says: a notice of the runtime's own, or one that has been let in."""
        self._user.put(entry)
        if self._idle.acquire(False):
            self.schedule(self)
        elif self.is_closed():
            self.drain()

    def post_system(self, message: SystemMessage) -> None:
        """Put something into the system lane: handled before any waiting message, refused when closed."""
        lane = self._system
        if lane is None:
            with making:
                lane = self._system
                if lane is None:
                    lane = self._system = SimpleQueue()
        lane.put(message)
        self.alarm = True
        if self.is_closed():  # no need for a worker to find that out, and there may be none any more
            self.drain()
        elif self._idle.acquire(False):
            self.schedule(self)

    # -- taking out

    def next_message(self) -> Entry | None:
        """Take the oldest message, if there is one."""
        user = self._user
        if user.empty():  # much cheaper than an exception
            return None
        try:
            return user.get_nowait()
        except Empty:
            return None

    def next_system(self) -> SystemMessage | None:
        """Take the oldest thing of the system lane, if there is one."""
        lane = self._system
        if lane is None or lane.empty():
            return None
        try:
            return lane.get_nowait()
        except Empty:
            return None

    def queued(self) -> tuple[int, int]:
        """Count what waits: ordinary messages, system messages."""
        lane = self._system
        return self._user.qsize(), 0 if lane is None else lane.qsize()

    def call_waiting_senders(self) -> None:
        """Wake the senders that wait for room; they look for themselves."""
        with making:
            waiting, self._room = self._room, None
        for wake in waiting or ():
            wake()

    # -- closing

    def drain(self) -> int:
        """Refuse everything that waits; any thread may do it, several at once too. Only once it is closed.

        Returns:
            How many ordinary messages were refused.
        """
        count = 0
        lane = self._system
        if self._room is None and self._user.empty() and (lane is None or lane.empty()):
            return 0
        while (entry := self.next_message()) is not None:
            count += 1
            self.refuse(entry, None)
        while (message := self.next_system()) is not None:
            message.refuse(self.dead())
        if self._room is not None:
            self.call_waiting_senders()
        return count

    def refuse(self, entry: Entry, error: Exception | None) -> None:
        """Answer one entry that will not be handled: with `error`, or that the owner is dead."""
        message, reply = entry
        if reply is None:
            self.undelivered(message)
        else:
            reply.try_set_exception(error or self.dead())

    # -- the limit

    def make_room(self, entry: Entry) -> bool:
        """Deal with a full mailbox; say whether the message may go in (one more for each sender at the same time)."""
        self.overflowed()
        limit = self.limit or 0
        policy, patience = self.overflow_policy()
        if policy == "drop_oldest":
            oldest = self.next_message()
            if oldest is not None:
                self.refuse(oldest, MailboxFull("dropped for a newer message", limit=limit))
            return True
        error = MailboxFull(f"the mailbox is full: {limit} messages wait", limit=limit)
        if policy == "drop_newest":
            self.refuse(entry, error)
            return False
        may_block = policy == "block" and current_cell() is not self and not context.on_loop
        if may_block and self._wait_for_room(limit, patience):
            return True
        raise error

    def _wait_for_room(self, limit: int, patience: float) -> bool:
        """Block the sender until a message was taken out, for at most `patience` seconds."""
        deadline = Deadline(patience)
        while self._user.qsize() >= limit and not self.is_closed():
            left = deadline.left
            if left <= 0:
                return False
            self._sleep_until_called(limit, left)
        if self.is_closed():
            raise self.dead()
        return True

    def _sleep_until_called(self, limit: int, left: float) -> None:
        gate = allocate_lock()
        gate.acquire()
        with making:
            if self._room is None:
                self._room = []
            self._room.append(gate.release)
        worker = context.worker
        if worker is not None:
            worker.enter_blocking()
        try:
            if self._user.qsize() >= limit and not self.is_closed():
                gate.acquire(True, min(left, LONGEST_WAIT))
        finally:
            if worker is not None:
                worker.exit_blocking()


making = RLock()
"""Held for an instant, when a mailbox gets its first system message or a blocked sender. Re-entrant because the
garbage collector may run somebody's `__del__` in between, and that may send too."""
