"""A supervisor of N identical children, and routing of keys to them without a message.

```python
tree = one_for_one(partitioned(child(Counter), name="counters", partitions=4))
with Tree.start(system, tree) as running:
    counters = Partitions(running, "counters")
    counters["user-17"].call("increment")      # the same key always reaches the same partition
```
"""

import os
import zlib
from collections.abc import Callable, Hashable
from typing import Any, Unpack

import msgspec

from mlld_sdk.base.errors import InvalidOption
from mlld_sdk.base.options import refuse_unknown, whole
from mlld_sdk.supervision.errors import ChildNotFound, ChildRunning
from mlld_sdk.supervision.spec import RestartOptions, Strategy, SupervisorSpec, settle, supervisor
from mlld_sdk.supervision.tree import Place, Tree


def partitioned(
    template: object,
    *,
    name: str,
    partitions: int | None = None,
    strategy: Strategy = "one_for_one",
    with_arguments: Callable[[tuple[Any, ...], int], Any] | None = None,
    **options: Unpack[RestartOptions],
) -> SupervisorSpec:
    """Declare a supervisor over `partitions` copies of one child, named `0`, `1`, ...

    Args:
        template: Child spec or actor class.
        name: Name of the supervisor.
        partitions: How many; by default one for each processor.
        strategy: Which partitions are restarted together.
        with_arguments: Given the template's arguments and the number of the partition, makes that partition's
            arguments: a tuple or a list.
        **options: As in `RestartOptions`.

    Raises:
        InvalidOption: An option has a wrong value.
    """
    refuse_unknown(options, RestartOptions)
    count = whole("partitions", os.cpu_count() or 1 if partitions is None else partitions, least=1)
    spec = settle(template, "permanent", "never")
    children = []
    for number in range(count):
        args: Any = spec.args if with_arguments is None else with_arguments(spec.args, number)
        if not isinstance(args, tuple | list):
            raise InvalidOption("with_arguments", args, "a function that returns a tuple or a list of arguments")
        children.append(msgspec.structs.replace(spec, name=str(number), args=tuple(args)))
    return supervisor(strategy, *children, name=name, **options)


class Partitions:
    """Routes keys to the partitions of one supervisor.

    Args:
        tree: The running tree.
        path: Where the supervisor stands.

    Raises:
        ChildNotFound, ChildUnavailable: There is no such supervisor.
    """

    def __init__(self, tree: Tree, path: str) -> None:
        self._tree = tree
        self._place = tree[path]
        self._most = self._place.supervisor().count_children().specs
        self._size = self._most

    def __len__(self) -> int:
        """How many partitions keys are routed to."""
        return self._size

    def __getitem__(self, key: Hashable) -> Place:
        """Find the partition of a key: whole numbers by their remainder, everything else by a stable hash.

        Raises:
            ChildNotFound: It was resized to nothing.
        """
        if self._size == 0:
            raise ChildNotFound(f"{self._place.path} (resized to 0)")
        return self._tree[f"{self._place.path}/{self.number_of(key)}"]

    def number_of(self, key: Hashable) -> int:
        """Return which partition a key belongs to."""
        if isinstance(key, int):
            return abs(key) % self._size
        # Python's own hash of texts differs from process to process.
        return zlib.crc32(repr(key).encode()) % self._size

    def places(self) -> list[Place]:
        """List the partitions keys are routed to."""
        return [self._tree[f"{self._place.path}/{number}"] for number in range(self._size)]

    def resize(self, size: int) -> int:
        """Route to fewer partitions and stop the others, or start them again and route to them.

        Args:
            size: From 0 to the number declared.

        Returns:
            The size before.
        """
        if whole("size", size) > self._most:
            raise InvalidOption("size", size, f"a whole number from 0 to {self._most}")
        before, ref = self._size, self._place.supervisor()
        if size < before:
            self._size = size
            for number in range(before - 1, size - 1, -1):
                ref.terminate_child(str(number), "resized")
        else:
            for number in range(before, size):
                try:
                    ref.restart_child(str(number))
                except ChildRunning:  # a group restart has brought it back
                    continue
            self._size = size
        return before
