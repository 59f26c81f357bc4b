"""Process groups: which actors belong together under a name, and who wants to know when that changes.

Groups exist while they have members. A member may join several times and then has to leave as often. What a member
joined is left before any other learns of its death.
"""

import threading
from collections.abc import Hashable
from typing import Any, Literal

import msgspec

from mlld_sdk.actors.core.links import Revocable
from mlld_sdk.actors.core.ref import ActorRef
from mlld_sdk.actors.core.services import Watches, acting, find, publish, still_in_effect
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.pubsub.errors import NotJoined
from mlld_sdk.actors.pubsub.outlet import LIMIT, Outlet
from mlld_sdk.actors.registry.registry_rows import strict

Ref = ActorRef[Any]
Group = Hashable


class GroupMonitor:
    """The handle of one subscription to changes; after `cancel()` no `GroupChanged` of it is seen."""

    def __init__(self, groups: "Groups", owner: Ref, group: tuple[Hashable, ...], limit: int) -> None:
        self.owner = owner
        self.cancelled = False
        self._groups = groups
        self.group = group
        self._outlet = Outlet(owner, groups.name, limit)

    def cancel(self) -> None:
        """Stop watching; changes already on their way are dropped."""
        self._groups.forget(self)

    def send(self, kind: Literal["join", "leave"], group: Group, refs: tuple[Ref, ...]) -> None:
        """Send a change to the owner."""
        self._outlet.send(Revocable(self, GroupChanged(self, kind, group, refs)))


class GroupChanged(msgspec.Struct, frozen=True):
    """Told to a monitor's owner: these actors joined or left."""

    monitor: GroupMonitor
    kind: Literal["join", "leave"]
    group: Any
    refs: tuple[Ref, ...]


class Groups:
    """A scope of groups; several may live in one system.

    Methods without `refs` act for the actor that calls them. All are quick and may be called from any thread.
    """

    def __init__(self, system: ActorSystem, name: str = "pg") -> None:
        self.name = name
        self._lock = threading.RLock()
        self._names: dict[Hashable, Group] = {}
        self._members: dict[Hashable, dict[Ref, int]] = {}
        self._joined: dict[Ref, dict[Hashable, None]] = {}
        self._monitors: dict[tuple[Hashable, ...], dict[GroupMonitor, None]] = {}
        self._owned: dict[Ref, dict[GroupMonitor, None]] = {}
        self._watches = Watches(self._lock, self._died)
        publish(system, self, name)

    @classmethod
    def of(cls, system: ActorSystem, name: str = "pg") -> "Groups":
        """Find the scope of that name; raises `UnknownName` when there is none."""
        return find(system, cls, name)

    def join(self, group: Group, *refs: Ref) -> None:
        """Make actors (the caller, when none is named) members of a group, once more if they are already.

        Raises:
            ActorDead: One of them has ended; those named before it have joined.
        """
        still_in_effect()
        with self._lock:
            for ref in refs or (acting("joining", None),):
                self._watches.keep(ref)
                exact = strict(group)
                self._names.setdefault(exact, group)
                members = self._members.setdefault(exact, {})
                members[ref] = members.get(ref, 0) + 1
                self._joined.setdefault(ref, {})[exact] = None
                self._notify("join", exact, (ref,))

    def leave(self, group: Group, *refs: Ref) -> None:
        """End one membership of each of the actors (the caller, when none is named).

        Raises:
            NotJoined: None of them was a member.
        """
        still_in_effect()
        with self._lock:
            exact = strict(group)
            gone = [ref for ref in refs or (acting("leaving", None),) if self._leave_once(exact, ref)]
            if not gone:
                raise NotJoined(f"none of them is a member of {group!r}")
            for ref in gone:
                self._settle(ref)

    def members(self, group: Group) -> list[Ref]:
        """List the members of a group, each as often as it joined; an unknown group has none."""
        with self._lock:
            return self._listed(strict(group))

    def which_groups(self) -> list[Group]:
        """List the groups that have members."""
        with self._lock:
            return [self._names[exact] for exact in self._members]

    def monitor(self, group: Group, *, ref: Ref | None = None, limit: int = LIMIT) -> tuple[GroupMonitor, list[Ref]]:
        """Send the caller every change of a group from now on; return the handle and the members of this instant."""
        with self._lock:
            return self._watch((strict(group),), ref, limit), self.members(group)

    def monitor_all(self, *, ref: Ref | None = None, limit: int = LIMIT) -> tuple[GroupMonitor, dict[Group, list[Ref]]]:
        """Send the caller every change of every group from now on; return the handle and all members."""
        with self._lock:
            found = {self._names[exact]: self._listed(exact) for exact in self._members}
            return self._watch((), ref, limit), found

    # ------------------------------------------------------------------------------------------------------------------

    def _listed(self, exact: Hashable) -> list[Ref]:
        return [ref for ref, times in self._members.get(exact, {}).items() for _ in range(times)]

    def _watch(self, group: tuple[Hashable, ...], ref: Ref | None, limit: int) -> GroupMonitor:
        owner = acting("monitoring a group", ref)
        self._watches.keep(owner)
        monitor = GroupMonitor(self, owner, group, limit)
        self._monitors.setdefault(group, {})[monitor] = None
        self._owned.setdefault(owner, {})[monitor] = None
        return monitor

    def forget(self, monitor: GroupMonitor) -> None:
        """End a subscription to changes."""
        with self._lock:
            if monitor.cancelled:
                return
            monitor.cancelled = True
            watching = self._monitors[monitor.group]
            del watching[monitor]
            if not watching:
                del self._monitors[monitor.group]
            owned = self._owned[monitor.owner]
            del owned[monitor]
            if not owned:
                del self._owned[monitor.owner]
            self._settle(monitor.owner)

    def _notify(self, kind: Literal["join", "leave"], exact: Hashable, refs: tuple[Ref, ...]) -> None:
        group = self._names[exact]
        for watching in (self._monitors.get((exact,), {}), self._monitors.get((), {})):
            for monitor in watching:
                monitor.send(kind, group, refs)

    def _leave_once(self, exact: Hashable, ref: Ref) -> bool:
        members = self._members.get(exact, {})
        if ref not in members:
            return False
        self._notify("leave", exact, (ref,))
        members[ref] -= 1
        if not members[ref]:
            del members[ref]
            del self._joined[ref][exact]
            if not members:
                del self._members[exact], self._names[exact]
        return True

    def _settle(self, ref: Ref) -> None:
        """Stop watching an actor that is neither a member nor a watcher of anything."""
        if not self._joined.get(ref):
            self._joined.pop(ref, None)
            if ref not in self._owned:
                self._watches.release(ref)

    def _died(self, ref: Ref) -> None:
        for exact in list(self._joined.get(ref, ())):
            while self._leave_once(exact, ref):
                pass
        self._joined.pop(ref, None)
        for monitor in list(self._owned.get(ref, ())):
            self.forget(monitor)
