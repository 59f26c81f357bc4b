"""Every event there is, found in the code: the page that lists them is written from here and cannot be out of date.

python docs/make_events.py      # write the list into docs/events.md
"""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Final

from mlld_sdk.base.events import Event

PAGE: Final = Path(__file__).with_name("events.md")
BEGIN: Final = "<!-- the list below is written by `python docs/make_events.py` -->"
END: Final = "<!-- end of the list -->"

LAYERS: Final = {
    "actors": "Actors",
    "supervision": "Supervision",
    "transport": "Engines",
    "journal": "Runs and steps",
    "": "Agents, telemetry and operators",
}
"""Sections of the page, by the first folder below the package."""

PACKAGE: Final = Path(__file__).parents[1] / "mlld_sdk"

SKIPPED: Final = re.compile(
    r"mlld_sdk\.(demo|transport\.embedded|cli|pytest_plugin|testing|__main__|.*\.__main__)(\.|$)"
)
"""Modules that are programs, whose events are their own, or that need more than the core."""


def catalogue() -> dict[str, type[Event]]:
    """Find every event class of the library by its name; imports the whole library.

    Raises:
        ValueError: Two classes have the same name.
    """
    for module in pkgutil.walk_packages([str(PACKAGE)], "mlld_sdk.", onerror=lambda _: None):
        if not SKIPPED.match(module.name):
            importlib.import_module(module.name)
    found: dict[str, type[Event]] = {}
    todo: list[type[Event]] = [Event]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        tag = kind.__struct_config__.tag
        if not isinstance(tag, str) or not kind.__module__.startswith("mlld_sdk.") or SKIPPED.match(kind.__module__):
            continue
        if tag in found:
            raise ValueError(f"{tag} is the name of {found[tag].__qualname__} and of {kind.__qualname__}")
        found[tag] = kind
    return dict(sorted(found.items()))


def render() -> str:
    """Write the list as Markdown: name, class, when it is told, fields."""
    sections: dict[str, list[str]] = {title: [] for title in LAYERS.values()}
    for tag, kind in catalogue().items():
        folder = kind.__module__.split(".")[1]
        section = LAYERS.get(folder, LAYERS[""])
        place = f"{kind.__module__.removeprefix('mlld_sdk.')}.{kind.__qualname__}"
        sections[section].append(f"| `{tag}` | `{place}` | {_cell(_when(kind))} | {_cell(_fields(kind))} |")
    lines: list[str] = []
    for title, rows in sections.items():
        lines += [
            f"### {title}",
            "",
            "| event | class, in `mlld_sdk` | when | fields |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    return "\n".join(lines)


def into(page: str) -> str:
    """Replace the list in a page by what is true now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{render()}\n{END}{after}"


def _when(kind: type[Event]) -> str:
    text = inspect.getdoc(kind) or ""
    return " ".join(re.split(r"\n\s*\nAttributes:", text)[0].split())


def _fields(kind: type[Event]) -> str:
    return "<br>".join(f"`{name}`: {text}" for name, text in explained(kind).items() if name != "at")


def explained(kind: type[Event]) -> dict[str, str]:
    """Give what the docstrings of an event and its bases say of each field."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, attributes = (inspect.getdoc(base) or "").partition("Attributes:\n")
        for match in re.finditer(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE):
            found[match[1]] = " ".join(match[2].split())
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(into(PAGE.read_text()))
