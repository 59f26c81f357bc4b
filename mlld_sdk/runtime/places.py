"""Finding places of a running tree by path, or by name if that is unique."""

from collections.abc import Iterator
from typing import Any

from mlld_sdk.supervision.errors import ChildNotFound
from mlld_sdk.supervision.supervisor_ref import SupervisorRef
from mlld_sdk.supervision.tree import Tree


def places(tree: Tree) -> Iterator[tuple[str, Any]]:
    """List paths and what is started there, from the states that supervisors have published."""
    todo = [tree.root]
    while todo:
        state = tree.context.states.get(todo.pop())
        if state is None:
            continue
        for slot in state.slots:
            yield f"{state.path}/{state.label_of(slot)}", slot.spec.start
            if slot.child is not None:
                todo.append(slot.child)


def find(tree: Tree, root: str, name: str) -> tuple[str, Any]:
    """Return the path of a place and what is started there.

    Raises:
        ChildNotFound: There is none of that path or name, or more than one of that name.
    """
    whole = name if name.split("/", 1)[0] == root else f"{root}/{name}"
    known = list(places(tree))
    exact = [place for place in known if place[0] == whole]
    found = exact or [place for place in known if place[0].rsplit("/", 1)[-1] == name]
    if len(found) != 1:
        raise ChildNotFound(name, [path for path, _ in found[:10]])
    return found[0]


def above(tree: Tree, path: str) -> tuple[SupervisorRef, str]:
    """Return the supervisor of a place, and what it calls the child there."""
    parent, _, name = path.rpartition("/")
    return tree[parent].supervisor(), name
