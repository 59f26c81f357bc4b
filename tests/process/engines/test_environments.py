"""What engines get of the host's environment, and that secrets in it are not told with their failures."""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from mlld_sdk import Agent, Client, Job, Pool, Runtime, child, one_for_one
from mlld_sdk.errors import EngineDied, InvalidOption, MlldError, ScriptError
from tests.support.clients import Make, engine, make_client
from tests.support.eventually import eventually

__all__ = ["engine", "make_client"]

NAMES = 'run sh { env | sed "s/=.*//" | sort }'
PLAIN = {"PWD", "SHLVL", "_", "OLDPWD", "TMPDIR", "MLLD_OTP_OWNER"}
"""What shells and the library set by themselves."""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MLLD_", "NODE_", "LC_")) or name == "LANG":
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-aws")
    monkeypatch.setenv("NODE_AUTH_TOKEN", "canary-of-npm")
    monkeypatch.setenv("NODE_NO_WARNINGS", "1")
    monkeypatch.setenv("CUSTOMER", "somebody")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def names(client: Client) -> set[str]:
    return set(client.process(NAMES).split()) - PLAIN


def test_engines_get_the_whole_environment_unless_told_otherwise(make_client: Make) -> None:
    assert {"AWS_SECRET_ACCESS_KEY", "NODE_AUTH_TOKEN", "CUSTOMER", "PATH", "LC_ALL"} <= names(make_client())


def test_a_minimal_environment_is_enough_and_holds_no_secrets(make_client: Make) -> None:
    found = names(make_client(inherit_env="minimal", environ={"MODEL_KEY": "given by name"}))
    assert {"PATH", "LC_ALL", "NODE_NO_WARNINGS", "MODEL_KEY"} <= found
    assert not {"AWS_SECRET_ACCESS_KEY", "NODE_AUTH_TOKEN", "CUSTOMER"} & found


def test_an_environment_of_chosen_variables_has_those(make_client: Make) -> None:
    client = make_client(inherit_env=["PATH", "CUSTOMER", "NOT_THERE"])
    found = names(client)
    assert {"PATH", "CUSTOMER"} <= found
    assert not {"AWS_SECRET_ACCESS_KEY", "HOME", "NOT_THERE", "LC_ALL"} & found
    assert client.process("show `ü @payload.x`", payload={"x": 1}) == "ü 1\n"


def test_engines_work_with_nothing_of_the_environment(make_client: Make) -> None:
    client = make_client(inherit_env=[])
    script = 'exe @f(x) = sh { echo "hi $x" }\nexe @g(x) = cmd { echo @x }\nshow @f("ü")\nshow @g("you")'
    assert client.process(script).split() == ["hi", "ü", "you"]
    assert Path(client.process('run sh { echo "$TMPDIR" }').strip()).parent == Path(tempfile.gettempdir())


@pytest.mark.parametrize("wrong", ["minimum", ["A=B"], [""], [1], None, True, 3, "PATH"])
@pytest.mark.parametrize(
    "declare",
    [
        lambda value: Client(engine="embedded", inherit_env=value),
        lambda value: child(Client, name="c", engine="embedded", inherit_env=value),
        lambda value: child(Agent, name="a", engine="embedded", inherit_env=value),
        lambda value: child(Pool, name="p", engine="embedded", inherit_env=value),
    ],
    ids=["client", "supervised client", "agent", "pool"],
)
def test_wrong_values_are_refused_where_they_are_declared(declare: Callable[[Any], object], wrong: Any) -> None:
    with pytest.raises(InvalidOption, match="inherit_env must be"):
        declare(wrong)


class Tells(Agent):
    """Fails in several ways, each with the token in its words."""

    engine = "embedded"
    environ: ClassVar = {"SERVICE_TOKEN": "canary-of-token"}

    def run(self, job: Job, how: str) -> Any:
        if how == "python":
            raise RuntimeError("refused with canary-of-token")
        return job.process(SCRIPTS[how])


SCRIPTS = {
    "script": "show @nothing(`canary-of-token`)\n",
    "stderr": 'run sh { echo "denied: $SERVICE_TOKEN $AWS_SECRET_ACCESS_KEY" >&2; exit 1 }\nshow @no_such(`x`)',
    "command": 'exe llm @ask(x) = sh { echo "denied: $SERVICE_TOKEN" >&2; exit 1 }\nshow @ask("x")',
}


def test_nothing_that_is_told_of_failures_holds_a_secret(tmp_path: Path) -> None:
    events: list[Any] = []
    runtime = Runtime(one_for_one(child(Tells, name="a", on_command_failure="fail")), store=tmp_path / "runs.db")
    runtime.bus.attach("seen", events.append)
    with runtime:
        said = []
        for how in ("python", *SCRIPTS):
            try:
                runtime["a"].run(how).result(timeout=30)
            except MlldError as error:
                said.append(f"{error} {error!r} {vars(error)}")
        runs = [str(msgspec.to_builtins(run, enc_hook=str)) for run in runtime.journal.runs()]
        assert len(said) >= 3
    told = "".join([*said, *runs, *(str(msgspec.to_builtins(event, enc_hook=str)) for event in events)])
    assert "[redacted]" in told
    assert "canary-of" not in told


PANICS = """\
#!/bin/sh
read line
echo "noise: $SERVICE_TOKEN"
echo "panic: $SERVICE_TOKEN, $AWS_SECRET_ACCESS_KEY" >&2
exit 3
"""


def test_the_last_words_of_an_engine_hold_no_secret(tmp_path: Path) -> None:
    crashed = tmp_path / "engine"
    crashed.write_text(PANICS)
    crashed.chmod(0o755)
    events: list[Any] = []
    client = Client(str(crashed), environ={"SERVICE_TOKEN": "canary-of-token"}, sink=events.append)
    with client, pytest.raises(EngineDied) as caught:
        client.process("show `x`")
    assert "panic: [redacted], [redacted]" in caught.value.stderr_tail
    assert "canary-of" not in f"{caught.value} {vars(caught.value)}"
    eventually(lambda: {"noise: [redacted]", "panic: [redacted]"} <= set(re.findall(r"\w+: \[redacted\]", str(events))))
    assert "canary-of" not in str(events)


def test_a_crash_report_of_an_agent_holds_no_secret() -> None:
    class Falls(Agent):
        engine = "embedded"
        environ: ClassVar = {"SERVICE_TOKEN": "canary-of-token"}
        eager = True

        def on_receive(self, message: Any) -> Any:
            if isinstance(message, str):
                raise RuntimeError(f"fell over {message} and canary-of-token")
            return super().on_receive(message)

    with Runtime(one_for_one(child(Falls, name="a"))) as runtime:
        runtime["a"].ref.tell("canary-of-token")
        eventually(lambda: runtime.history.crashes())
        told = str(msgspec.to_builtins(runtime.history.crashes(), enc_hook=str))
        told += str(msgspec.to_builtins(runtime.history.events(), enc_hook=str))
    assert "fell over" in told
    assert "canary-of" not in told


def test_what_scripts_give_is_data_and_stays_as_it_is() -> None:
    with Client(engine="embedded", environ={"SERVICE_TOKEN": "canary-of-token"}) as client:
        assert client.process('run sh { echo "$SERVICE_TOKEN" }') == "canary-of-token\n"
        with pytest.raises(ScriptError):
            client.process("show @nothing(1)")
