"""Rules of the house that no linter has: see docs/design.md for the rooms they keep in order.

None has exceptions but those that are named here with their reason.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINKED = ("actors", "supervision", "transport")
MOST_LINES, MOST_METHODS, MOST_FLAT = 600, 45, 5

FOR_USERS = {"mlld_sdk.actors.core.actor", "mlld_sdk.actors.stages.producers"}
"""Modules with methods that a user's class must define, as OTP's callbacks."""
DECLARED = {
    "mlld_sdk.agents.agent.Agent.__init__(**options)",
    "mlld_sdk.agents.owner.EngineOwner.__init__(**options)",
}
"""Calls whose options are checked against a declared class of options."""


@cache
def modules() -> dict[str, Path]:
    """Find every product module by its dotted name, the three linked packages under `mlld_sdk`."""
    found = {}
    for top in ("mlld_sdk", *LINKED):
        for path in (ROOT / top).rglob("*.py"):
            words = path.relative_to(ROOT).with_suffix("").parts
            if words[0] == "mlld_sdk" and words[1] in LINKED:
                continue
            name = ".".join(words if words[0] == "mlld_sdk" else ("mlld_sdk", *words))
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text()) for name, path in modules().items()}


def imports(name: str) -> Iterator[str]:
    """List the product modules that one imports anywhere: at the top, for type checkers, inside functions."""
    package = name if modules()[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            found = [full if (full := f"{home}.{alias.name}") in modules() else home for alias in node.names]
        else:
            continue
        yield from (module for module in found if module in modules() and module != name)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Find the groups of nodes that reach each other (Tarjan)."""
    found: list[list[str]] = []
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        path.append(node)
        for other in graph[node]:
            if other not in order:
                visit(other)
            if other in path:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            circle = path[path.index(node) :]
            del path[path.index(node) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for node in graph:
        if node not in order:
            visit(node)
    return found


def test_no_files_import_each_other_in_a_circle() -> None:
    inside = set(modules()) - {"mlld_sdk"}  # the front door: every name is fetched when it is used
    left = circles({name: set(imports(name)) & inside for name in inside})
    assert not left, left


def classes() -> dict[str, list[tuple[str, ast.ClassDef]]]:
    """Find every class of the product, nested ones too, by its name."""
    found = defaultdict(list)
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append((name, node))
    return found


def named(node: ast.expr) -> str:
    """Say which name an expression ends in: `Base` for `module.Base[T]`."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def test_no_class_is_big_with_what_it_inherits_from_the_product() -> None:
    known = {name: found[0][1] for name, found in classes().items()}

    def line(name: str) -> set[str]:
        nodes = [node for node in known[name].bases if not ast.unparse(node).startswith("concurrent.futures.")]
        bases = {named(node) for node in nodes} & set(known) - {name}
        return {name}.union(*map(line, bases))

    big = {}
    for name in known:
        members = [member for part in line(name) for member in known[part].body]
        methods = {member.name for member in members if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)}
        lines = sum((known[part].end_lineno or 0) - known[part].lineno + 1 for part in line(name))
        if lines > MOST_LINES or len(methods) > MOST_METHODS:
            big[name] = f"{lines} lines, {len(methods)} methods"
    assert not big, big


def test_a_class_name_is_used_once() -> None:
    twice = {name: [module for module, _ in found] for name, found in classes().items() if len(found) > 1}
    assert not twice, twice


def test_parts_are_given_and_not_filled_in_by_subclasses() -> None:
    hooks = {
        name
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc is not None and named(getattr(node.exc, "func", node.exc)) == HOOK
    }
    assert hooks <= FOR_USERS, hooks


HOOK = "NotImplementedError"


def test_few_modules_lie_outside_of_rooms() -> None:
    flat = [name for name, path in modules().items() if path.parent == ROOT / "mlld_sdk"]
    assert len(flat) <= MOST_FLAT, flat


FREE = {"fields", "given", "kwargs", "params", "results"}
"""Data, and what is handed on to what a user wrote."""


def test_options_of_public_calls_have_names_and_types() -> None:
    loose = set()
    for name, tree in trees().items():
        for owner in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]:
            for node in owner.body:
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.args.kwarg is None:
                    continue
                if node.args.kwarg.arg.strip("_") in FREE:
                    continue
                public = not node.name.startswith("_") or node.name == "__init__"
                if public and node.args.kwarg.annotation is not None and named(node.args.kwarg.annotation) == "Any":
                    loose.add(
                        f"{name}.{getattr(owner, 'name', '')}.{node.name}(**{node.args.kwarg.arg})".replace("..", ".")
                    )
    assert loose <= DECLARED, loose - DECLARED


def test_every_room_says_what_lives_there() -> None:
    rooms = {name for name, path in modules().items() if path.name == "__init__.py"}
    silent = {name for name in rooms if len((ast.get_docstring(trees()[name]) or "").split()) < 25}
    assert not silent, silent
