"""One list of public names per module: the imports that type checkers read are the ones that are made on demand.

A module that exports names of others writes them once, one a line, in the form that means "public" to checkers:

```
if TYPE_CHECKING:
    from mlld_sdk.agents.agent import Agent as Agent
else:
    __all__, __getattr__, __dir__ = exports(__name__)
```

At run time nothing is imported until one of the names is used.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

Exports = tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]


def exports(module: str) -> Exports:
    """Make `__all__`, `__getattr__` and `__dir__` of a module from its own `from A import B as B` lines.

    Names of a block that begins with `if TYPE_CHECKING:  # unlisted` can be imported, too, but are not in `__all__`.

    Raises:
        ImportError: The module's source is not there to be read.
    """
    homes: dict[str, str] = {}
    listed: list[str] = []
    hidden = False
    for line in _source(module).splitlines():
        match line.split():
            case ["if", "TYPE_CHECKING:", *comment]:
                hidden = "unlisted" in " ".join(comment)
            case ["from", home, "import", name, "as", public] if name == public:
                homes[name] = home
                if not hidden:
                    listed.append(name)
    namespace = vars(sys.modules[module])

    def get(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = namespace[name] = getattr(importlib.import_module(home), name)
        return value

    return sorted(listed), get, lambda: sorted({*namespace, *listed})


def _source(module: str) -> str:
    spec = sys.modules[module].__spec__
    read = getattr(spec and spec.loader, "get_data", None)
    if spec is None or read is None:
        raise ImportError(f"the source of {module} is needed to import it", name=module)
    source: bytes = read(spec.origin)
    return source.decode()
