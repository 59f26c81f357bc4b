"""A corpus of scripts, run on any engine that speaks the live protocol, and what came of it in comparable form.

`tests/corpus/README.md` tells the formats. `MLLD_COMMAND=... python -m tests.support.corpus` records the answers anew.
"""

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

CORPUS = Path(__file__).parent.parent / "corpus"
ANSWERS = CORPUS / "answers"
DEADLINE = 30.0
SYNTAX_KEYS = frozenset(("entries", "items", "template", "nodeId", "commandTemplate", "codeTemplate"))
FILES = {
    "mlld-config.json": "{}\n",
    "note.txt": "note body\n",
    "data.json": '{"k":[1,2]}\n',
    "feed.jsonl": '{"a":1}\n{"a":2}\n',
    "lib.mld": 'exe @polish(t) = `~ @t ~`\nvar @name = "lib"\nexport { @polish, @name }\n',
}


class Case(NamedTuple):
    """One script: the parameters it is sent with, its text, and the name of its file and cache."""

    name: str
    params: dict[str, Any]
    script: str


def themes() -> list[str]:
    return sorted(path.stem for path in CORPUS.glob("*.txt"))


def load(theme: str) -> list[Case]:
    """Read a theme's cases."""
    cases = []
    for block in (CORPUS / f"{theme}.txt").read_text("utf-8").split("\n=== ")[1:]:
        title, _, body = block.partition("\n")
        params: dict[str, Any] = {}
        if body.startswith("#P "):
            head, _, body = body.partition("\n")
            params = json.loads(head[3:])
        cases.append(Case(f"{theme}_{title.strip()}", params, body.rstrip("\n")))
    return cases


class Engine:
    """An engine process that is asked one thing after the other.

    Attributes:
        unanswered: Whether the engine told of calls of models that gave no answer, in the last case.
    """

    unanswered = False

    def __init__(self, command: list[str], folder: Path) -> None:
        for name, text in FILES.items():
            (folder / name).write_text(text)
        self.folder = folder
        environment = {name: value for name, value in os.environ.items() if name != "NODE_OPTIONS"}
        environment["HOME"] = "/home/nobody"
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._buffer = b""
        self._id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def ask(self, method: str, params: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Send a request; give its result and its events."""
        self._id += 1
        line = json.dumps({"method": method, "id": self._id, "params": params}, ensure_ascii=False) + "\n"
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode("utf-8", "surrogatepass"))
        self._process.stdin.flush()
        events: list[dict[str, Any]] = []
        deadline = time.monotonic() + DEADLINE
        while True:
            message = json.loads(self._line(deadline))
            if message.get("result", {}).get("id") == self._id:
                return message["result"], events
            if "event" in message:
                events.append(message["event"])

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(descriptor, 1 << 20) if ready else b""
            if not piece:
                raise AssertionError("the engine is silent" if not ready else "the engine has ended")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def outcome(self, case: Case) -> dict[str, Any]:
        """Run a case and give what can be compared."""
        params = {"script": case.script, "filePath": str(self.folder / f"{case.name}.mld"), **case.params}
        result, events = self.ask("process", params)
        self.unanswered = bool(result.get("unanswered"))
        outcome = summary(result, events)
        outcome["rows"] = rows_of(self.folder / ".mlld" / "checkpoints" / case.name)
        return json.loads(json.dumps(outcome).replace(str(self.folder), "<dir>"))


def summary(result: dict[str, Any], events: list[dict[str, Any]]) -> dict[str, Any]:
    """Give output, state, exports or the error's code, and the events that are not about debugging or the cache."""
    if "error" in result:
        outcome: dict[str, Any] = {"error": result["error"]["code"]}
    else:
        outcome = {
            "output": result["output"],
            "state": [[write["path"], write["value"]] for write in result["stateWrites"]],
            "exports": {name: plain(entry["value"]) for name, entry in result["exports"].items()},
        }
    seen: list[Any] = []
    for event in events:
        kind = event.get("type")
        if kind == "effect":
            effect = {
                key: event["effect"][key] for key in ("type", "content", "path", "mode") if key in event["effect"]
            }
            source = event["effect"].get("source")
            seen.append({**effect, "source": source and [source["start"]["offset"], source["end"]["offset"]]})
        elif kind == "state:write":
            seen.append(["state", event["write"]["path"], event["write"]["value"]])
        elif kind == "stream:chunk":
            # how a pipe cuts its text is chance
            name, text = event["event"]["source"], event["event"]["chunk"]
            if seen and isinstance(seen[-1], list) and seen[-1][0] == name:
                seen[-1][1] += text
            else:
                seen.append([name, text])
    outcome["events"] = seen
    return outcome


def plain(value: Any) -> Any:
    """Give an exported value without the real engine's wrapper; leaked syntax trees become a mark."""
    if isinstance(value, dict) and {"type", "text", "data", "metadata"} <= value.keys():
        return plain(value["data"])
    if isinstance(value, dict) and "type" in value and SYNTAX_KEYS & value.keys():
        return "<syntax>"
    return value


def rows_of(cache: Path) -> list[dict[str, Any]]:
    """Read a cache's rows with their stored values, without times."""
    try:
        lines = (cache / "llm-cache.jsonl").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        row = {key: value for key, value in json.loads(line).items() if key not in ("ts", "durationMs")}
        row["stored"] = (cache / "results" / f"{row['key'].replace(':', '-')}.json").read_text("utf-8")
        rows.append(row)
    return rows


def same(came: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Compare two outcomes; an export that leaked a syntax tree is compared by name only."""
    exports = {
        name: came.get("exports", {}).get(name) if value == "<syntax>" else value
        for name, value in wanted.get("exports", {}).items()
    }
    return came == ({**wanted, "exports": exports} if "exports" in wanted else wanted)


def recorded(theme: str) -> dict[str, dict[str, Any]]:
    """Read what the real engine answered."""
    lines = (ANSWERS / f"{theme}.jsonl").read_text("utf-8").splitlines()
    return {entry["case"]: entry["outcome"] for entry in map(json.loads, lines)}


def real_command() -> list[str]:
    """Give the command of the real engine that survives failures, from `MLLD_COMMAND`."""
    command = shlex.split(os.environ.get("MLLD_COMMAND", ""))
    if command and Path(command[0]).name == "node":
        command.insert(1, "--unhandled-rejections=none")
    return [*command, "live", "--stdio"] if command else []


def main() -> None:
    """Record the answers of the themes named on the command line, or of all, from the real engine."""
    ANSWERS.mkdir(exist_ok=True)
    for theme in sys.argv[1:] or themes():
        with tempfile.TemporaryDirectory() as folder, Engine(real_command(), Path(folder).resolve()) as engine:
            lines = [json.dumps({"case": case.name, "outcome": engine.outcome(case)}) for case in load(theme)]
        (ANSWERS / f"{theme}.jsonl").write_text("".join(line + "\n" for line in lines))
        sys.stdout.write(f"{theme}: {len(lines)}\n")


if __name__ == "__main__":
    main()
