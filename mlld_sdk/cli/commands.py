"""What each command does: ask the runtime, and print the answer for people or as JSON."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import msgspec

from mlld_sdk.base.durations import pause
from mlld_sdk.base.errors import ConfigurationError, MlldError
from mlld_sdk.base.texts import printable
from mlld_sdk.cli import render
from mlld_sdk.cli.settings import configuration
from mlld_sdk.control import protocol as p
from mlld_sdk.control.client import Remote, processes_of
from mlld_sdk.supervision.snapshot import duration
from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, SupervisorSpec

AGENTS = ("agent or pool", "state", "busy", "idle", "waiting", "runs", "pending", "oldest", "parked")
"""Heads of a table: engines and the requests that wait for one, then runs at work, without an owner, and parked."""

DECLARE = "give a Python file that says `tree = one_for_one(child(...), ...)`"


ALL: Final = 0
"""What `--pid all` is read as."""


def _remote(options: Namespace) -> Remote:
    """Connect to the one process that is meant."""
    return Remote(options.runtime, pid=options.pid or None)


def _ask(options: Namespace, request: p.Request) -> Any:
    with _remote(options) as remote:
        return remote.ask(request)


def _processes(options: Namespace) -> list[p.RuntimeProcess]:
    """Find all processes of the runtime that is meant, or the one that was named."""
    return processes_of(options.runtime, options.pid or None)


def _ask_all(options: Namespace, request: p.Request) -> list[tuple[p.RuntimeProcess, Any]]:
    """Ask every process of a runtime; the answer of one that does not answer, or refuses, is its error.

    Raises:
        MlldError: There is one process, or all have failed: the error of the first.
    """
    found: list[tuple[p.RuntimeProcess, Any]] = []
    for process in _processes(options):
        try:
            with Remote(process.name, pid=process.pid) as remote:
                found.append((process, remote.ask(request)))
        except MlldError as error:
            found.append((process, error))
    if all(isinstance(answer, MlldError) for _, answer in found):
        raise found[0][1]
    return found


def _print_all(
    options: Namespace, found: list[tuple[p.RuntimeProcess, Any]], text: Callable[[Any], str], status: int = 0
) -> int:
    """Print what one process has answered, or what each of several has, and return the status: 1 if one has failed."""
    if len(found) == 1:
        _print(options, found[0][1], text)
        return status
    data, said = [], []
    for process, answer in found:
        failed = isinstance(answer, MlldError)
        shown = {"error": {"code": answer.code, "message": answer.message, "hint": answer.hint}} if failed else answer
        data.append({"runtime": process.name, "pid": process.pid, **shown})
        said.append(f"{process}\n{printable(answer.message) if failed else text(render.for_people(answer))}")
    _print(options, {"processes": data}, lambda _: "\n\n".join(said))
    return 1 if any("error" in one for one in data) else status


def _any_of(options: Namespace) -> Remote:
    """Connect to any process of a runtime, if it makes no difference: all keep their runs in the same store."""
    found = _ask_all(options, p.AskWho())
    stores = {answer["store"] for _, answer in found if isinstance(answer, dict)}
    if len(found) == 1 or (len(stores) == 1 and None not in stores):
        process = next(process for process, answer in found if isinstance(answer, dict))
        return Remote(process.name, pid=process.pid)
    return _remote(options)  # says that there are several


def _print(options: Namespace, data: object, text: Callable[[Any], str]) -> int:
    """Print an answer, as JSON or in words; whatever is in it, a terminal is shown it and does not obey it."""
    if options.json:
        said = printable(msgspec.json.encode(data, enc_hook=str).decode())
    else:
        said = printable(text(render.for_people(data)), lines=True)
    print(said, flush=True)
    return 0


def tree(options: Namespace) -> int:
    """Print the tree and its verdict, of every process; the exit status says whether all are healthy."""
    found = _ask_all(options, p.AskTree())
    words = [answer["verdict"]["word"] for _, answer in found if isinstance(answer, dict)]
    healthy = all(word in ("healthy", "recovering", "maintenance") for word in words)
    return _print_all(options, found, itemgetter("text"), 0 if healthy else 3)


def top(options: Namespace) -> int:
    """Print who works and what it costs, in every process."""
    while True:
        found = _ask_all(options, p.AskTop())
        if options.every and not options.json and sys.stdout.isatty():
            sys.stdout.write("\033[2J\033[H")
        status = _print_all(options, found, _top_text)
        if not options.every:
            return status
        pause(options.every)


def _top_text(found: dict[str, Any]) -> str:
    engines = [
        (one["engine"], one["pid"], render.ago(one["since"]), render.size(one["rss"])) for one in found["engines"]
    ]
    agents = [
        (one["path"], one["state"], one["busy"], one["idle"], one["waiting"], *render.runs(one["runs"]))
        for one in found["agents"]
    ]
    zombies = [(one["actor"], duration(one["age"]), render.where(one["stack"])) for one in found["zombies"]]
    runs = "  ".join(f"{state} {count}" for state, count in sorted(found["runs"].items())) or "none"
    if found["journal"]["degraded"]:
        runs += f"\njournal: takes no writes: {found['journal']['reason']}"
    return "\n\n".join(
        [
            *([f"the tree {found['end']}"] if found.get("end") else []),
            f"runs: {runs}",
            render.table(("engine", "pid", "started", "memory"), engines, "no engine lives"),
            render.table(AGENTS, agents, "none has an engine or runs"),
            *([render.table(("killed, still running", "for", "at"), zombies)] if zombies else []),
        ]
    )


def why(options: Namespace) -> int:
    """Print everything known about a crash, or about a place and its crashes."""
    found = _ask_all(options, p.AskWhy(subject=options.subject))
    unknown = [one for one in found if isinstance(one[1], p.Refused)]  # a crash is known to the process it was in
    return _print_all(options, [one for one in found if one not in unknown], _why_text)


def _why_text(found: dict[str, Any]) -> str:
    place = found.get("place")
    said = []
    if place:
        said.append(f"{place['path']}: {place['state']}" + (f", last: {place['last']}" if place.get("last") else ""))
    said += [render.crash_report(crash) for crash in found["crashes"]]
    if not found["crashes"]:
        said.append("it has not failed, as far as is remembered")
    return "\n\n".join(said)


def events(options: Namespace) -> int:
    """Print events, the last ones or as they come."""
    with _remote(options) as remote:
        after, wait = -options.limit or remote.ask(p.AskEvents(after=-1))["last"], 0.0
        while True:
            found = remote.ask(p.AskEvents(after=after, wait=wait))
            for event in found["events"]:
                _print(options, event, render.event_line)
                after = event["n"]
            if not options.follow:
                return 0
            after, wait = max(after, found["last"] if after < 0 else after), 20.0


def crashes(options: Namespace) -> int:
    """Print crashes, newest first, one line each."""
    found = _ask_all(options, p.AskCrashes(path=options.path, since=options.last, limit=options.limit))
    return _print_all(
        options, found, lambda told: "\n".join(render.crash_line(crash) for crash in told["crashes"]) or "none"
    )


def runs(options: Namespace) -> int:
    """List, show, retry, cancel or submit runs, or record what an interrupted step of one gave."""
    with _any_of(options) as remote:
        return _runs(options, remote.ask)


def _runs(options: Namespace, ask: Callable[[p.Request], Any]) -> int:
    request: p.Request
    say: Callable[[Any], str]
    match options.action:
        case "ls":
            request = p.AskRuns(
                states=tuple(options.state or ()), agent=options.agent, before=options.before, limit=options.limit
            )
            say = partial(_runs_text, options.limit)
        case "show":
            request, say = p.AskRun(run_id=options.run), _run_text
        case "retry":
            request = p.RetryRun(run_id=options.run, rerun_interrupted=options.rerun_interrupted)
            say = partial(_now_text, options.run)
        case "cancel":
            request = p.CancelRun(run_id=options.run, reason=options.reason)
            say = partial(_now_text, options.run)
        case "resolve":
            request = p.ResolveStep(run_id=options.run, position=options.payload, value=_json(options.value))
            say = partial(_resolved_text, options.run, options.payload)
        case _:
            payload = None if options.payload is None else _json(options.payload)
            request = p.SubmitRun(agent=options.run, payload=payload, key=options.key)
            say = itemgetter("run_id")
    return _print(options, ask(request), say)


def _runs_text(limit: int, found: dict[str, Any]) -> str:
    rows = [(run["id"], run["kind"], run["state"], run["attempt"], render.ago(run["updated"])) for run in found["runs"]]
    text = render.table(("run", "agent", "state", "attempt", "changed"), rows)
    if rows and len(rows) == limit:
        text += f"\nthese are the newest {limit}; --before {rows[-1][0]} shows older ones"
    return text


def _now_text(run: str, found: dict[str, Any]) -> str:
    return f"{run} is {found['run']['state']}"


def _resolved_text(run: str, position: str, found: dict[str, Any]) -> str:
    return f"step {position} of {run} is {found['step']['state']}; `runs retry` goes on"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{render.cut(repr(text), 200)} is no JSON: {error}",
            hint="""for example '{"topic": "safety"}', '"text"', 3 or null""",
        ) from None


def _run_text(found: dict[str, Any]) -> str:
    run, outcome = found["run"], found["outcome"]
    changed = render.ago(run["updated"])
    lines = [f"{run['id']}   {run['kind']}   {run['state']}   attempt {run['attempt']}   changed {changed}"]
    lines += [f"  died: {reason}" for reason in run["deaths"]]
    if run.get("suspected"):
        lines.append(f"  processes that died, of this run or of another: {run['suspected']}")
    if run.get("quarantine"):
        lines.append("  in quarantine: it runs only while no other run in quarantine does")
    error = (outcome or {}).get("error")
    if error:
        kind = f"{error['type']}: " if error.get("type") else ""
        lines.append(f"  {error['code']}: {kind}{error['message']}")
        lines += [f"  hint: {error['hint']}"] if error.get("hint") else []
        lines += [f"    {line}" for line in (error.get("traceback") or "").rstrip().splitlines()]
    elif outcome:
        lines.append(f"  result: {render.cut(json.dumps(outcome['value']), 400)}")
    rows = []
    for step in found["steps"]:
        state = "to be retried" if step["state"] == "failed" and not step["final"] else step["state"]
        rows.append((step["position"], step["name"], state, step["attempts"], step["error"] or ""))
    return "\n".join([*lines, render.table(("step", "name", "state", "attempts", "error"), rows, "no step was begun")])


def operate(options: Namespace) -> int:
    """Pause, resume, restart or drain a place, in one process or in all of them."""
    request = p.Operate(what=options.command, path=options.path, reason=options.reason)
    if options.pid == ALL:
        return _print_all(options, _ask_all(options, request), itemgetter("text"))
    found = _ask(options, request)
    return _print(options, found, itemgetter("text"))


def checkpoint(options: Namespace) -> int:
    """List, look into, clean or fork caches of finished model calls; works on files, with or without a runtime."""
    from mlld_sdk.engines.checkpoints import Checkpoints

    caches = Checkpoints(options.dir)
    match options.action:
        case "ls" | "inspect":
            entries: Sequence[Any] = caches.list() if options.action == "ls" else caches.inspect(options.script)
            found: Any = [msgspec.to_builtins(one, enc_hook=str) for one in entries]
            return _print(options, found, _entries_text)
        case "clean":
            only = options.only
            found = caches.clean(options.script) if only is None else caches.invalidate(options.script, only)
            return _print(options, found, lambda count: f"{count} entries gone")
        case _:
            found = caches.fork(options.script, options.only)
            return _print(options, found, lambda count: f"{count} entries copied")


def _entries_text(entries: list[dict[str, Any]]) -> str:
    return render.table(tuple(entries[0]) if entries else (), [tuple(one.values()) for one in entries])


def doctor(options: Namespace) -> int:
    """Print which engines are installed and answer, and what this machine allows."""
    from mlld_sdk.cli.doctor import diagnose

    report = diagnose(configuration(command_line={"store": options.store})["store"])
    _print(options, msgspec.to_builtins(report, enc_hook=str), lambda _: str(report))
    return 0 if report.healthy else 1


def config(options: Namespace) -> int:
    """Print the effective settings, and where each of them comes from."""
    code = {} if options.file is None else _declared(Path(options.file))[1]
    found = configuration(code, {"store": options.store})
    return _print(options, found, str)


def evaluate(options: Namespace) -> int:
    """Run a line of mlld on an agent's engine and print its output."""
    found = _ask(options, p.Evaluate(agent=options.agent, script=options.script))
    return _print(options, found, lambda told: str(told["output"]).rstrip("\n"))


def demo(options: Namespace) -> int:
    """Break something for real and watch it heal."""
    from mlld_sdk.demo.stage import perform

    picture = options.picture or (Path("recovery.svg") if options.name == "recovery" else None)
    return perform(import_module(f"mlld_sdk.demo.{options.name}").play, options.engine, picture)


def run(options: Namespace) -> int:
    """Run a Python file that declares `tree` (and may declare `runtime_options`) as a service."""
    from mlld_sdk.runtime.runtime import EXIT_FORCED, Runtime
    from mlld_sdk.telemetry.json_lines import log_json
    from mlld_sdk.telemetry.log import log_events, stderr_logger

    path = Path(options.file)
    tree, declared = _declared(path)
    found = configuration(declared, {"store": options.store, "log": "off" if options.quiet else None})
    declared = {name: value for name, value in declared.items() if name not in ("log", "log_level")}
    named = {} if options.name is None else {"name": options.name}
    runtime = Runtime(tree, **{"name": path.stem, "control": True, **declared, **found.options(), **named})
    if found["log"] == "json":
        log_json(runtime.bus, debug=found["log_level"] == "debug")
    elif found["log"] == "plain":
        log_events(runtime.bus, stderr_logger(), debug=found["log_level"] == "debug")
    status = runtime.run_forever()
    report = runtime.stop()
    if report.cut_off:
        requests = ", ".join(f"{count} of {path}" for path, count in report.cut_off.items())
        render.complain(f"requests cut off by the stop: {requests}")
    if status == EXIT_FORCED:
        for what, paths in (("had to be killed", report.killed), ("could not be ended and still ran", report.left)):
            if paths:
                render.complain(f"{what}: {', '.join(paths)}")
        if report.left:  # at its end the interpreter waits for some kinds of threads, however long they take
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return status


def _declared(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return the tree a file declares, and its options for the runtime."""
    import runpy

    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}", hint=DECLARE)
    sys.path.insert(0, str(path.parent.absolute()))
    found = runpy.run_path(str(path), run_name="mlld_otp_service")
    tree = found.get("tree")
    if not isinstance(tree, SupervisorSpec | DynamicSpec | ChildSpec | type):
        what = f"declares a `tree` that is {tree!r}" if "tree" in found else "declares no `tree`"
        raise ConfigurationError(f"{path} {what}", hint=DECLARE)
    return tree, dict(found.get("runtime_options", {}))
