"""Write `reference.md` from the public lists and the docstrings behind them.

python docs/make_reference.py            # write the page
python docs/make_reference.py --check    # fail when it is stale
"""

import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlld_sdk

PAGE = Path(__file__).with_name("reference.md")

SECTIONS = ("Args", "Raises", "Returns", "Yields", "Attributes")


def modules() -> list[str]:
    """List the public modules: the package, and the roles that its docstring names."""
    return ["mlld_sdk", *re.findall(r"`(mlld_sdk\.\w+)`", mlld_sdk.__doc__ or "")]


def page() -> str:
    """Make the page: the names of each module, each described where it is met first."""
    parts = ["# Reference", "The public names, written by `python docs/make_reference.py` from their docstrings."]
    home: dict[int, str] = {}
    for title in modules():
        module = importlib.import_module(title)
        parts += [f"## `{title}`", described(inspect.getdoc(module) or "")]
        things = {name: getattr(module, name) for name in sorted(module.__all__, key=str.lower)}
        known = [f"`{name}` ({home[id(thing)]})" for name, thing in things.items() if id(thing) in home]
        if known:
            parts.append(f"Described above: {', '.join(known)}.")
        for name, thing in things.items():
            if id(thing) not in home:
                home[id(thing)] = f"`{title}`"
                parts += entry(name, thing)
    return "\n\n".join(parts) + "\n"


def entry(name: str, thing: Any) -> Iterator[str]:
    """Describe one name."""
    yield f"### `{name}`"
    if not (inspect.isclass(thing) and issubclass(thing, BaseException)):
        yield f"```text\n{signature(name, thing)}\n```"
    elif getattr(thing, "code", None):
        yield f"Code `{thing.code}`."
    yield described(inspect.getdoc(thing) or "")
    if inspect.isclass(thing):
        methods = [line for member in public(thing) if (line := method(*member))]
        if methods:
            yield "Methods and properties:"
            yield "\n".join(methods)


def public(kind: type) -> Iterator[tuple[str, Any]]:
    """Find the methods and properties that are this library's own, in the order of their classes."""
    seen: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith("mlld_sdk.") and not base.__module__.startswith("mlld_sdk.actors"):
            for name, member in vars(base).items():
                called = inspect.isfunction(member) or isinstance(member, classmethod | staticmethod | property)
                if called and not name.startswith(("_", "on_")) and name not in seen:
                    seen.add(name)
                    yield name, member


def method(name: str, member: Any) -> str:
    """Describe a method in a line."""
    function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    line = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    if not line:
        return ""
    shown = name if isinstance(member, property) else signature(name, function, owned=True)
    return f"- `{shown}`: {line}"


def signature(name: str, thing: Any, *, owned: bool = False) -> str:
    """Write a call as one would type it: without annotations, which the page would drown in."""
    try:
        parameters = list(inspect.signature(thing).parameters.values())
    except (TypeError, ValueError, NameError):  # no callable, or annotations that only checkers resolve
        return name
    if owned and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    bare = [parameter.replace(annotation=inspect.Parameter.empty, default=plain(parameter)) for parameter in parameters]
    text = str(inspect.Signature(bare))
    whole = f"{name}{text}"
    return whole if owned or len(whole) <= 110 else textwrap.fill(whole, 110, subsequent_indent="    ")


class _Shown:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def plain(parameter: inspect.Parameter) -> Any:
    """Keep defaults that say something; others would show addresses."""
    default = parameter.default
    if default is parameter.empty or isinstance(default, str | int | float | tuple | bool | None | type(None)):
        return default
    return _Shown("...")


def described(doc: str) -> str:
    """Turn a Google docstring into Markdown."""
    done: list[str] = []
    section = ""
    for line in doc.splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            section = line.rstrip(":")
            done += [f"{section}:", ""]
        elif section and line and not line.startswith(" "):
            section = ""
            done.append(line)
        elif section and (found := re.fullmatch(r" {4}(\**\w[\w.]*): (.*)", line)):
            done.append(f"- `{found[1]}`: {found[2]}")
        elif section:
            done.append(line[2:] if line.startswith("        ") else line.strip())
        else:
            done.append(line)
    text = "\n".join(done).strip()
    return re.sub(r"^(```python)$", r"\1 no-run", text, flags=re.MULTILINE)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/reference.md is stale: run python docs/make_reference.py")
