"""The runs of a runtime, found by what is known of them."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from mlld_sdk import child, one_for_one
from mlld_sdk.errors import RunKeyAmbiguous, RunKeyNotFound
from tests.support.agents import Thinker, running

TREE = one_for_one(
    child(Thinker, name="a", engine="embedded"), child(Thinker, name="b", engine="embedded"), max_restarts=3
)

SUBMIT = """
import sys
from mlld_sdk.journal import Journal
with Journal.open(sys.argv[1]) as journal:
    print(journal.submit("root/a", {"thoughts": 0}, key="elsewhere").id)
"""

LOOK = """
import sys
from mlld_sdk import Agent, Runtime, child, one_for_one
with Runtime(one_for_one(child(Agent, name="other", engine="embedded")), store=sys.argv[1]) as runtime:
    print(runtime.runs.find(key="order-7", agent="root/a").id, runtime.runs.find(key="order-7").id)
"""


def test_a_run_is_found_by_its_key_at_its_agent_and_without(tmp_path: Path) -> None:
    with running(TREE, tmp_path) as (runtime, _):
        agent = runtime.agent("a")
        run = agent.run({"thoughts": 0}, key="order-7")
        assert agent.find("order-7").id == run.id
        assert agent.find("order-7").result(60) == []
        assert runtime.runs.find(key="order-7").id == run.id
        for name in ("a", "root/a"):
            assert runtime.runs.find(key="order-7", agent=name).id == run.id

        async def look() -> list[str]:
            return [(await agent.aio.find("order-7")).id, (await runtime.runs.aio.find(key="order-7", agent="a")).id]

        assert asyncio.run(look()) == [run.id, run.id]


def test_a_key_that_no_run_has_is_a_typed_error(tmp_path: Path) -> None:
    with running(TREE, tmp_path) as (runtime, _):
        runtime.agent("a").run({"thoughts": 0}, key="mine")
        with pytest.raises(RunKeyNotFound, match=r"no run of root/b has the key 'mine'") as missing:
            runtime.agent("b").find("mine")
        assert (missing.value.code, missing.value.key, missing.value.agent) == ("RUN_KEY_NOT_FOUND", "mine", "root/b")
        with pytest.raises(RunKeyNotFound, match="no run of any agent"):
            runtime.runs.find(key="nobody's")
        with pytest.raises(RunKeyNotFound, match="no run of root/gone"):
            runtime.runs.find(key="mine", agent="gone")


def test_a_key_of_several_agents_needs_the_agent(tmp_path: Path) -> None:
    with running(TREE, tmp_path) as (runtime, _):
        mine, other = (runtime.agent(name).run({"thoughts": 0}, key="both") for name in "ab")
        with pytest.raises(RunKeyAmbiguous, match="root/a, root/b") as ambiguous:
            runtime.runs.find(key="both")
        assert ambiguous.value.agents == ("root/a", "root/b")
        assert runtime.runs.find(key="both", agent="a").id == mine.id
        assert runtime.runs.find(key="both", agent="b").id == other.id


def test_a_run_is_found_by_its_key_from_each_process_that_shares_the_journal(tmp_path: Path) -> None:
    store = str(tmp_path / "state.db")
    with running(TREE, tmp_path) as (runtime, _):
        theirs = subprocess.run([sys.executable, "-c", SUBMIT, store], capture_output=True, text=True, timeout=60)
        assert runtime.agent("a").find("elsewhere").id == theirs.stdout.strip(), theirs.stderr
        mine = runtime.agent("a").run({"thoughts": 0}, key="order-7")
        seen = subprocess.run([sys.executable, "-c", LOOK, store], capture_output=True, text=True, timeout=60)
        assert seen.stdout.split() == [mine.id, mine.id], seen.stderr
