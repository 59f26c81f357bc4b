"""A mailbox: two lanes, a limit with a policy, and a close after which no message is lost in silence.

How it stays correct without a lock of its own on the way in:

- Both lanes are `SimpleQueue`s. Putting in and taking out are atomic, so a killer may empty them while the consumer
  is still at work: each entry is taken by exactly one of them.
- `idle` is a lock used as a flag: held while the mailbox is scheduled or being worked on. A sender that gets it
  schedules the owner. A consumer that found nothing lets go and looks again.
- Closing comes first and emptying afterwards. A sender that slipped in between either gets the flag (and schedules
  one more run, which empties) or sees the close after its put and empties the mailbox itself.
"""

from _thread import allocate_lock
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from mlld_sdk.actors.core.context import context, current_cell, topology
from mlld_sdk.actors.core.errors import ActorDead, MailboxFull
from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.protocols import AnyCell
from mlld_sdk.actors.core.scheduler import blocking
from mlld_sdk.base.durations import Deadline

T = TypeVar("T")

Entry = tuple[Any, Future[Any] | None]
"""A message and the future that wants its answer, if any."""


class SystemMessage:
    """Something for the runtime itself to do between two messages of the actor."""

    __slots__ = ()

    def handle(self, cell: Any) -> None:
        """Do it, as the actor."""

    def refuse(self, why: ActorDead) -> None:
        """Answer the caller that waits for this, because the actor ended first."""


def take(lane: SimpleQueue[T] | None) -> T | None:
    """Take the oldest thing of a lane, if there is one."""
    if lane is None or lane.empty():  # much cheaper than an exception
        return None
    try:
        return lane.get_nowait()
    except Empty:
        return None


class Mailbox:
    """Where an actor's messages wait.

    Args:
        owner: Whose it is; closed as soon as that has an `ending`.
        runner: Scheduled when there is something to do.
        schedule: Brings `runner` to the run queue.
        limit: Messages that may wait.
    """

    __slots__ = ("alarm", "idle", "limit", "owner", "paused", "room", "runner", "schedule", "system_lane", "user")

    def __init__(
        self, owner: AnyCell, runner: Any, schedule: Callable[[Any], object], limit: int | None = None
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

    def post(self, entry: Entry) -> None:
        """Put a message in.

        Raises:
            ActorDead: It is closed.
            MailboxFull: It is full and refuses, or stayed full for as long as the sender may be blocked.
        """
        ending = self.owner.ending  # it may have one a line later
        if ending is not None:
            raise self.owner.dead()
        if self.limit is not None and self.user.qsize() >= self.limit and not self.make_room(entry):
            return
        self.user.put(entry)  # from here on as in `post_always`, spelled out for speed
        if self.idle.acquire(False):
            self.schedule(self.runner)
        elif self.owner.ending is not None:
            self.drain()

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
            with topology:
                lane = self.system_lane
                if lane is None:
                    lane = self.system_lane = SimpleQueue()
        lane.put(message)
        self.alarm = True
        if self.owner.ending is not None:  # no need for a worker to find that out, and there may be none any more
            self.drain()
        elif self.idle.acquire(False):
            self.schedule(self.runner)

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
        with topology:
            waiting, self.room = self.room, None
        for wake in waiting or ():
            wake()

    def drain(self) -> int:
        """Refuse everything that waits, and count the ordinary messages; any thread may do it, once it is closed."""
        count = 0
        lane = self.system_lane
        if self.room is None and self.user.empty() and (lane is None or lane.empty()):
            return 0
        while (entry := take(self.user)) is not None:
            count += 1
            self.refuse(entry, None)
        while (message := take(self.system_lane)) is not None:
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

    def make_room(self, entry: Entry) -> bool:
        """Deal with a full mailbox; return whether the message may go in, one for each sender at the same time."""
        self.owner.overflowed()
        limit = self.limit or 0
        policy = self.owner.traits.overflow
        if policy == "drop_oldest":
            oldest = take(self.user)
            if oldest is not None:
                self.refuse(oldest, MailboxFull("dropped for a newer message", limit=limit))
            return True
        error = MailboxFull(f"the mailbox is full: {limit} messages wait", limit=limit)
        if policy == "drop_newest":
            self.refuse(entry, error)
            return False
        may_block = policy == "block" and current_cell() is not self.owner and not context.on_loop
        if may_block and self._wait_for_room(limit):
            return True
        raise error

    def _wait_for_room(self, limit: int) -> bool:
        """Block the sender until a message was taken out, for as long as the class allows."""
        deadline = Deadline(self.owner.traits.overflow_timeout)
        while self.user.qsize() >= limit and self.owner.ending is None:
            if deadline.is_over:
                return False
            gate = allocate_lock()
            gate.acquire()
            with topology:
                self.room = self.room or []
                self.room.append(gate.release)
            with blocking():
                if self.user.qsize() >= limit and self.owner.ending is None:
                    gate.acquire(True, deadline.left)
        if self.owner.ending is not None:
            raise self.owner.dead()
        return True
