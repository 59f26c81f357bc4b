"""A mailbox: two lanes, a limit with a policy, and a close after which no message is lost in silence.

How it stays correct without a lock of its own on the way in:

- Both lanes are `SimpleQueue`s. Putting in and taking out are atomic, so a killer may empty them while the consumer
  is still at work: each entry is taken by exactly one of them.
- `idle` is a lock used as a flag: held while the mailbox is scheduled or being worked on. A sender that gets it
  schedules the owner. A consumer that found nothing lets go and looks again.
- Closing comes first and emptying afterwards. A sender that slipped in between either gets the flag (and schedules
  one more run, which empties) or sees the close after its put and empties the mailbox itself.
"""

from _thread import RLock, allocate_lock
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from mlld_sdk.actors.core.class_options import Overflow
from mlld_sdk.actors.core.context import context, current_cell
from mlld_sdk.actors.core.errors import ActorDead, MailboxFull
from mlld_sdk.actors.core.exits import Reason
from mlld_sdk.actors.core.future import Future
from mlld_sdk.base.durations import LONGEST_WAIT, Deadline

Entry = tuple[Any, Future[Any] | None]
"""A message and the future that wants its answer, if any."""

making = RLock()
"""Held for an instant, when a mailbox gets its first system message or a blocked sender. Re-entrant because the
garbage collector may run a `__del__` in between, and that may send too."""


class SystemMessage:
    """Something for the runtime itself to do between two messages of the actor."""

    __slots__ = ()

    def handle(self, cell: Any) -> None:
        """Do it, as the actor."""

    def refuse(self, why: ActorDead) -> None:
        """Answer the caller that waits for this, because the actor ended first."""


class MailboxOwner(Protocol):
    """Whose mailbox it is."""

    ending: Reason | None
    """Set when nothing is taken in any more."""

    def dead(self) -> ActorDead:
        """Make the error for those whose message will not be handled."""

    def overflow_policy(self) -> tuple[Overflow, float]:
        """Return what to do beyond the limit, and for how long a sender may be blocked."""

    def overflowed(self) -> None:
        """Take note that the limit was reached."""

    def undelivered(self, message: Any) -> None:
        """Count a message that will not be handled and that no caller waits for."""


class Mailbox:
    """Where an actor's messages wait.

    Args:
        owner: Whose it is.
        runner: Scheduled when there is something to do.
        schedule: Brings `runner` to the run queue.
        limit: Messages that may wait.
    """

    __slots__ = ("alarm", "idle", "limit", "owner", "paused", "room", "runner", "schedule", "system_lane", "user")

    def __init__(
        self, owner: MailboxOwner, runner: Any, schedule: Callable[[Any], object], limit: int | None = None
    ) -> None:
        self.owner = owner
        self.runner = runner
        self.schedule = schedule
        self.limit = limit
        self.user: SimpleQueue[Entry] = SimpleQueue()
        self.system_lane: SimpleQueue[SystemMessage] | None = None
        self.room: list[Callable[[], object]] | None = None
        """Wakes the senders that wait for room."""
        self.idle = allocate_lock()
        self.paused = False
        """Whether ordinary messages wait until it is resumed."""
        self.alarm = False
        """Set when the consumer must look up between two messages: the system lane has something, or it is dead."""

    # -- putting in

    def post(self, entry: Entry) -> None:
        """Put a message in.

        Raises:
            ActorDead: It is closed.
            MailboxFull: It is full and refuses, or stayed full for as long as the sender may be blocked.
        """
        if self.owner.ending is not None:
            raise self.owner.dead()
        if self.limit is not None and self.user.qsize() >= self.limit and not self.make_room(entry):
            return
        self.user.put(entry)  # from here on as in `post_always`, spelled out for speed
        if self.idle.acquire(False):
            self.schedule(self.runner)
        elif self.is_closed():
            self.drain()

    def is_closed(self) -> bool:
        """Return whether nothing is taken in any more."""
        return self.owner.ending is not None

    def post_always(self, entry: Entry) -> None:
        """Put a message in whatever the limit says: a notice of the runtime's own, or one that has been let in."""
        self.user.put(entry)
        if self.idle.acquire(False):
            self.schedule(self.runner)
        elif self.owner.ending is not None:
            self.drain()

    def post_system(self, message: SystemMessage) -> None:
        """Put something into the system lane: handled before any waiting message, refused when closed."""
        lane = self.system_lane
        if lane is None:
            with making:
                lane = self.system_lane
                if lane is None:
                    lane = self.system_lane = SimpleQueue()
        lane.put(message)
        self.alarm = True
        if self.owner.ending is not None:  # no need for a worker to find that out, and there may be none any more
            self.drain()
        elif self.idle.acquire(False):
            self.schedule(self.runner)

    # -- taking out

    def next_message(self) -> Entry | None:
        """Take the oldest message, if there is one."""
        user = self.user
        if user.empty():  # much cheaper than an exception
            return None
        try:
            return user.get_nowait()
        except Empty:
            return None

    def next_system(self) -> SystemMessage | None:
        """Take the oldest thing of the system lane, if there is one."""
        lane = self.system_lane
        if lane is None or lane.empty():
            return None
        try:
            return lane.get_nowait()
        except Empty:
            return None

    def queued(self) -> tuple[int, int]:
        """Count what waits: ordinary messages, system messages."""
        lane = self.system_lane
        return self.user.qsize(), 0 if lane is None else lane.qsize()

    def has_work(self) -> bool:
        """Return whether there is something to handle or to refuse."""
        lane = self.system_lane
        if lane is not None and not lane.empty():
            return True
        return not self.user.empty() and (not self.paused or self.owner.ending is not None)

    def let_go(self) -> None:
        """Stop working on it; what came in at the last moment brings the runner back to the run queue."""
        self.idle.release()
        lane = self.system_lane
        if self.user.empty() and (lane is None or lane.empty()):  # nearly always, so it is looked at without a call
            return
        if self.has_work() and self.idle.acquire(False):
            self.schedule(self.runner)

    def call_waiting_senders(self) -> None:
        """Wake the senders that wait for room; they look for themselves."""
        with making:
            waiting, self.room = self.room, None
        for wake in waiting or ():
            wake()

    # -- closing

    def drain(self) -> int:
        """Refuse everything that waits; any thread may do it, several at once too. Only once it is closed.

        Returns:
            How many ordinary messages were refused.
        """
        count = 0
        lane = self.system_lane
        if self.room is None and self.user.empty() and (lane is None or lane.empty()):
            return 0
        while (entry := self.next_message()) is not None:
            count += 1
            self.refuse(entry, None)
        while (message := self.next_system()) is not None:
            message.refuse(self.owner.dead())
        if self.room is not None:
            self.call_waiting_senders()
        return count

    def refuse(self, entry: Entry, error: Exception | None) -> None:
        """Answer one entry that will not be handled: with `error`, or that the owner is dead."""
        message, reply = entry
        if reply is None:
            self.owner.undelivered(message)
        else:
            reply.try_set_exception(error or self.owner.dead())

    # -- the limit

    def make_room(self, entry: Entry) -> bool:
        """Deal with a full mailbox.

        Returns:
            Whether the message may go in (one more for each sender at the same time).
        """
        self.owner.overflowed()
        limit = self.limit or 0
        policy, patience = self.owner.overflow_policy()
        if policy == "drop_oldest":
            oldest = self.next_message()
            if oldest is not None:
                self.refuse(oldest, MailboxFull("dropped for a newer message", limit=limit))
            return True
        error = MailboxFull(f"the mailbox is full: {limit} messages wait", limit=limit)
        if policy == "drop_newest":
            self.refuse(entry, error)
            return False
        sender: object = current_cell()
        may_block = policy == "block" and sender is not self.owner and not context.on_loop
        if may_block and self._wait_for_room(limit, patience):
            return True
        raise error

    def _wait_for_room(self, limit: int, patience: float) -> bool:
        """Block the sender until a message was taken out, for at most `patience` seconds."""
        deadline = Deadline(patience)
        while self.user.qsize() >= limit and not self.is_closed():
            left = deadline.left
            if left <= 0:
                return False
            self._sleep_until_called(limit, left)
        if self.is_closed():
            raise self.owner.dead()
        return True

    def _sleep_until_called(self, limit: int, left: float) -> None:
        gate = allocate_lock()
        gate.acquire()
        with making:
            if self.room is None:
                self.room = []
            self.room.append(gate.release)
        worker = context.worker
        if worker is not None:
            worker.enter_blocking()
        try:
            if self.user.qsize() >= limit and not self.is_closed():
                gate.acquire(True, min(left, LONGEST_WAIT))
        finally:
            if worker is not None:
                worker.exit_blocking()
