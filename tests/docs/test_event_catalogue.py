"""Every event has a name of its own and stands on the page that lists them."""

import re
import runpy
from pathlib import Path

import msgspec

from mlld_sdk.base.events import Event
from mlld_sdk.telemetry.log import DEBUG, ERROR, WARNING

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "events.md"
make_events = runpy.run_path(str(ROOT / "docs" / "make_events.py"))
catalogue, explained, into = make_events["catalogue"], make_events["explained"], make_events["into"]


def test_names_are_nouns_with_verbs_and_nobody_shares_one() -> None:  # EV-3
    found = catalogue()  # raises if two classes share a name
    assert len(found) > 50
    for name, kind in found.items():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name), name
        assert issubclass(kind, Event)
        assert kind.__doc__, name
        assert set(explained(kind)) == set(kind.__struct_fields__), f"{name}: say what each field is"
        taken = {"event", "level", "type", "timestamp", "n"} & set(kind.__struct_fields__)
        assert not taken, f"{name} has a field that log lines need for themselves: {taken}"


def test_the_page_lists_every_event_as_it_is_now() -> None:
    page = PAGE.read_text()
    assert into(page) == page, "run: python docs/make_events.py"
    for name, kind in catalogue().items():
        assert f"| `{name}` | `{kind.__module__.removeprefix('mlld_sdk.')}.{kind.__name__}` |" in page


def test_every_event_can_be_written_as_json() -> None:  # EV-5
    for kind in catalogue().values():
        assert msgspec.json.schema(kind)


def test_levels_name_events_that_exist() -> None:
    assert set(catalogue()) >= DEBUG | WARNING | ERROR
