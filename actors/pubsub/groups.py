"""Process groups: which actors belong together under a name, and who wants to know when that changes.

Groups exist while they have members. A member may join several times and then has to leave as often. What a member
joined is left before any other learns of its death.
"""

import threading
from collections.abc import Hashable
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec

from mlld_sdk.actors.core.errors import UnknownName
from mlld_sdk.actors.core.links import Revocable
from mlld_sdk.actors.core.services import Ref, Watches, acting, find, publish, still_in_effect
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.pubsub.errors import NotJoined
from mlld_sdk.actors.pubsub.outlet import LIMIT, Outlet
from mlld_sdk.actors.registry.registry_rows import KeyRow, Rows
from mlld_sdk.base.errors import ConfigurationError

Group = Hashable
Kind = Literal["join", "leave"]

EVERY_GROUP: Final = object()
"""Stands for all groups among what monitors watch."""


class GroupMonitor(Outlet):
    """The handle of one subscription to changes; after `cancel()` no `GroupChanged` of it is seen."""

    __slots__ = ("_groups", "cancelled", "watched")

    def __init__(self, groups: "Groups", owner: Ref, watched: Group, limit: int) -> None:
        super().__init__(owner, groups.name, limit)
        self.watched: Group = watched
        self.cancelled: bool = False
        self._groups = groups

    def cancel(self) -> None:
        """Stop watching; changes already on their way are dropped."""
        self._groups.forget(self)


class GroupChanged(msgspec.Struct, frozen=True):
    """Told to a monitor's owner: these actors joined or left."""

    monitor: GroupMonitor
    kind: Kind
    group: Any
    refs: tuple[Ref, ...]


class Groups:
    """A scope of groups; several may live in one system.

    Methods without `refs` act for the actor that calls them. All are quick and may be called from any thread.
    """

    def __init__(self, system: ActorSystem, name: str = "pg") -> None:
        self.name = name
        self._lock = threading.RLock()
        self._watches = Watches(self._lock, self._died)
        self._members: Rows[Ref] = Rows(self._idle)  # with how often each has joined
        self._monitors: Rows[Ref] = Rows(self._idle)
        publish(system, self, name)

    @classmethod
    def of(cls, system: ActorSystem, name: str = "pg") -> "Groups":
        """Find the scope of that name; raises `UnknownName` when there is none."""
        return find(system, cls, name)

    @classmethod
    def shared(cls, system: ActorSystem, name: str = "pg") -> "Groups":
        """Find the scope of that name, or make it if nobody has yet."""
        with suppress(UnknownName):
            return cls.of(system, name)
        with suppress(ConfigurationError):  # another thread was faster
            return cls(system, name)
        return cls.of(system, name)

    def join(self, group: Group, *refs: Ref) -> None:
        """Make actors (the caller, when none is named) members of a group, once more if they are already.

        Raises:
            ActorDead: One of them has ended; those named before it have joined.
        """
        still_in_effect()
        with self._lock:
            for ref in refs or (acting("joining", None),):
                self._watches.keep(ref)
                held = self._members.owned(ref, group)
                member = held[0] if held else self._members.add(group, ref, 0)
                member.value += 1
                self._notify("join", member)

    def leave(self, group: Group, *refs: Ref) -> None:
        """End one membership of each of the actors (the caller, when none is named).

        Raises:
            NotJoined: None of them was a member.
        """
        still_in_effect()
        with self._lock:
            gone = 0
            for ref in refs or (acting("leaving", None),):
                for member in self._members.owned(ref, group):
                    self._leave(member)
                    gone += 1
            if not gone:
                raise NotJoined(f"none of them is a member of {group!r}")

    def members(self, group: Group) -> list[Ref]:
        """List the members of a group, each as often as it joined; an unknown group has none."""
        with self._lock:
            return [row.owner for row in self._members.under(group) for _ in range(row.value)]

    def which_groups(self) -> list[Group]:
        """List the groups that have members."""
        with self._lock:
            return self._members.keys()

    def monitor(self, group: Group, *, ref: Ref | None = None, limit: int = LIMIT) -> tuple[GroupMonitor, list[Ref]]:
        """Send the caller every change of a group from now on; return the handle and the members of this instant."""
        with self._lock:
            return self._watch(group, ref, limit), self.members(group)

    def monitor_all(self, *, ref: Ref | None = None, limit: int = LIMIT) -> tuple[GroupMonitor, dict[Group, list[Ref]]]:
        """Send the caller every change of every group from now on; return the handle and all members."""
        with self._lock:
            return self._watch(EVERY_GROUP, ref, limit), {group: self.members(group) for group in self.which_groups()}

    def forget(self, monitor: GroupMonitor) -> None:
        """End a subscription to changes."""
        with self._lock:
            monitor.cancelled = True
            for row in self._monitors.owned(monitor.ref, monitor.watched):
                if row.value is monitor:
                    self._monitors.drop(row)

    def _watch(self, watched: Group, ref: Ref | None, limit: int) -> GroupMonitor:
        owner = acting("monitoring a group", ref)
        self._watches.keep(owner)
        monitor = GroupMonitor(self, owner, watched, limit)
        self._monitors.add(watched, owner, monitor)
        return monitor

    def _notify(self, kind: Kind, member: KeyRow[Ref]) -> None:
        for row in (*self._monitors.under(member.key), *self._monitors.under(EVERY_GROUP)):
            change = GroupChanged(row.value, kind, member.key, (member.owner,))
            row.value.send(Revocable(row.value, change))

    def _leave(self, member: KeyRow[Ref]) -> None:
        self._notify("leave", member)
        member.value -= 1
        if not member.value:
            self._members.drop(member)

    def _idle(self, ref: Ref) -> None:
        if not self._members.holds_any(ref) and not self._monitors.holds_any(ref):
            self._watches.release(ref)

    def _died(self, ref: Ref) -> None:
        for member in self._members.of(ref):
            for _ in range(member.value):
                self._leave(member)
        for row in self._monitors.of(ref):
            self.forget(row.value)
