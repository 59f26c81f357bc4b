"""The client's page and the client's tests speak of the same clauses."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_clause_of_the_client_is_proved_and_every_proof_names_a_clause() -> None:
    defined = re.findall(r"^- \*\*(C-\d+)\*\*", (ROOT / "docs/client.md").read_text(), re.MULTILINE)
    assert len(defined) == len(set(defined))
    cited: set[str] = set()
    for test in sorted([*ROOT.glob("tests/*/client/*.py"), *ROOT.glob("tests/unit/scripts/*.py")]):
        for comment in re.findall(r"\) -> None:  # (.*)", test.read_text()):
            cited |= set(re.findall(r"C-\d+", comment))
    assert cited == set(defined), (sorted(cited - set(defined)), sorted(set(defined) - cited))
