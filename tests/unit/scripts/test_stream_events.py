"""The names of a script's events: none is also an error or an event of the telemetry, so `case` can tell them apart."""

import importlib
import pkgutil
from typing import Any

import mlld_sdk
from mlld_sdk.base.errors import MlldError
from mlld_sdk.base.events import Event
from mlld_sdk.scripts.stream_events import ScriptEvent


def names_below(kind: type[Any]) -> set[str]:
    """Return the names of a class's subclasses, their subclasses included."""
    return {name for sub in kind.__subclasses__() for name in {sub.__name__, *names_below(sub)}}


def test_no_event_of_a_script_has_the_name_of_an_error_or_of_another_event() -> None:
    for module in pkgutil.walk_packages(mlld_sdk.__path__, "mlld_sdk."):
        if not module.name.endswith(("__main__", "pytest_plugin")) and ".demo" not in module.name:
            importlib.import_module(module.name)
    of_scripts = names_below(ScriptEvent)
    assert {"ScriptFailed", "ScriptCancelled", "ScriptCompleted"} <= of_scripts
    assert of_scripts & names_below(MlldError) == set()
    assert of_scripts & names_below(Event) == set()
