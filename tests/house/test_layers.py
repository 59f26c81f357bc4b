"""The arrows between the layers run downwards only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOUNDATION = {"mlld_sdk.base"}
MAY_IMPORT = {
    "transport": FOUNDATION | {"mlld_sdk.transport"},
    "actors": FOUNDATION | {"mlld_sdk.actors"},
    "supervision": FOUNDATION | {"mlld_sdk.supervision", "mlld_sdk.actors"},
}


def imported_modules(source: Path) -> set[str]:
    """Collect the absolute names of every import statement of a module, those inside functions too."""
    package = ["mlld_sdk", *source.relative_to(ROOT).with_suffix("").parts]
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("layer", sorted(MAY_IMPORT))
def test_a_layer_imports_only_what_lies_below_it(layer: str) -> None:
    allowed = MAY_IMPORT[layer]
    for source in (ROOT / layer).rglob("*.py"):
        for name in imported_modules(source):
            if name.split(".")[0] == "mlld_sdk":
                assert any(name == ok or name.startswith(ok + ".") for ok in allowed), f"{source} imports {name}"
