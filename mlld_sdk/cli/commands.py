"""What each command does: ask the runtime, and print the answer for people or as JSON."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from mlld_sdk.base.durations import pause
from mlld_sdk.base.errors import ConfigurationError
from mlld_sdk.cli import render
from mlld_sdk.cli.settings import configuration
from mlld_sdk.control import protocol as p
from mlld_sdk.control.client import Remote
from mlld_sdk.supervision.snapshot import duration
from mlld_sdk.supervision.spec import ChildSpec, DynamicSpec, SupervisorSpec

DECLARE = "give a Python file that says `tree = one_for_one(child(...), ...)`"


def _ask(options: Namespace, request: p.Request) -> Any:
    with Remote(options.runtime) as remote:
        return remote.ask(request)


def _print(options: Namespace, data: object, text: str) -> int:
    print(msgspec.json.encode(data, enc_hook=str).decode() if options.json else text)
    return 0


def tree(options: Namespace) -> int:
    """Print the tree and its verdict; the exit status says whether it is healthy."""
    found = _ask(options, p.AskTree())
    _print(options, found, found["text"])
    return 0 if found["verdict"]["word"] in ("healthy", "recovering", "maintenance") else 3


def top(options: Namespace) -> int:
    """Print who works and what it costs."""
    with Remote(options.runtime) as remote:
        while True:
            found = remote.ask(p.AskTop())
            engines = [
                (one["engine"], one["pid"], render.ago(one["since"]), render.size(one["rss"]))
                for one in found["engines"]
            ]
            agents = [(one["path"], one["state"], one["busy"], one["idle"], one["waiting"]) for one in found["agents"]]
            zombies = [(one["actor"], duration(one["age"]), render.where(one["stack"])) for one in found["zombies"]]
            runs = "  ".join(f"{state} {count}" for state, count in sorted(found["runs"].items())) or "none"
            if found["journal"]["degraded"]:
                runs += f"\njournal: takes no writes: {found['journal']['reason']}"
            text = "\n\n".join(
                [
                    f"runs: {runs}",
                    render.table(("engine", "pid", "started", "memory"), engines, "no engine lives"),
                    render.table(("agent or pool", "state", "busy", "idle", "waiting"), agents, "none has an engine"),
                    *([render.table(("killed, still running", "for", "at"), zombies)] if zombies else []),
                ]
            )
            if options.every and not options.json and sys.stdout.isatty():
                sys.stdout.write("\033[2J\033[H")
            _print(options, found, text)
            if not options.every:
                return 0
            pause(options.every)


def why(options: Namespace) -> int:
    """Print everything known about a crash, or about a place and its crashes."""
    found = _ask(options, p.AskWhy(subject=options.subject))
    place = found.get("place")
    said = []
    if place:
        said.append(f"{place['path']}: {place['state']}" + (f", last: {place['last']}" if place.get("last") else ""))
    said += [render.crash_report(crash) for crash in found["crashes"]]
    if not found["crashes"]:
        said.append("it has not failed, as far as is remembered")
    return _print(options, found, "\n\n".join(said))


def events(options: Namespace) -> int:
    """Print events, the last ones or as they come."""
    with Remote(options.runtime) as remote:
        after, wait = -options.limit or remote.ask(p.AskEvents(after=-1))["last"], 0.0
        while True:
            found = remote.ask(p.AskEvents(after=after, wait=wait))
            for event in found["events"]:
                print(json.dumps(event) if options.json else render.event_line(event), flush=True)
                after = event["n"]
            if not options.follow:
                return 0
            after, wait = max(after, found["last"] if after < 0 else after), 20.0


def crashes(options: Namespace) -> int:
    """Print crashes, newest first, one line each."""
    found = _ask(options, p.AskCrashes(path=options.path, since=options.last, limit=options.limit))
    return _print(options, found, "\n".join(render.crash_line(crash) for crash in found["crashes"]) or "none")


def runs(options: Namespace) -> int:
    """List, show, retry, cancel or submit runs, or record what an interrupted step of one gave."""
    ask = partial(_ask, options)
    match options.action:
        case "ls":
            asked = p.AskRuns(
                states=tuple(options.state or ()), agent=options.agent, before=options.before, limit=options.limit
            )
            found = ask(asked)
            rows = [
                (run["id"], run["kind"], run["state"], run["attempt"], render.ago(run["updated"]))
                for run in found["runs"]
            ]
            text = render.table(("run", "agent", "state", "attempt", "changed"), rows)
            if rows and len(rows) == options.limit:
                text += f"\nthese are the newest {options.limit}; --before {rows[-1][0]} shows older ones"
        case "show":
            found = ask(p.AskRun(run_id=options.run))
            text = _run_text(found)
        case "retry":
            found = ask(p.RetryRun(run_id=options.run, rerun_interrupted=options.rerun_interrupted))
            text = f"{options.run} is {found['run']['state']}"
        case "cancel":
            found = ask(p.CancelRun(run_id=options.run, reason=options.reason))
            text = f"{options.run} is {found['run']['state']}"
        case "resolve":
            found = ask(p.ResolveStep(run_id=options.run, position=options.payload, value=_json(options.value)))
            text = f"step {options.payload} of {options.run} is {found['step']['state']}; `runs retry` goes on"
        case _:
            payload = None if options.payload is None else _json(options.payload)
            found = ask(p.SubmitRun(agent=options.run, payload=payload, key=options.key))
            text = found["run_id"]
    return _print(options, found, text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is no JSON: {error}", hint="""for example '{"topic": "safety"}', '"text"', 3 or null"""
        ) from None


def _run_text(found: dict[str, Any]) -> str:
    run, outcome = found["run"], found["outcome"]
    changed = render.ago(run["updated"])
    lines = [f"{run['id']}   {run['kind']}   {run['state']}   attempt {run['attempt']}   changed {changed}"]
    lines += [f"  died: {reason}" for reason in run["deaths"]]
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
    """Pause, resume, restart or drain a place."""
    found = _ask(options, p.Operate(what=options.command, path=options.path, reason=options.reason))
    return _print(options, found, found["text"])


def checkpoint(options: Namespace) -> int:
    """List, look into, clean or fork caches of finished model calls; works on files, with or without a runtime."""
    from mlld_sdk.engines.checkpoints import Checkpoints

    caches = Checkpoints(options.dir)
    match options.action:
        case "ls" | "inspect":
            entries: Sequence[Any] = caches.list() if options.action == "ls" else caches.inspect(options.script)
            found: Any = [msgspec.to_builtins(one, enc_hook=str) for one in entries]
            text = render.table(tuple(found[0]) if found else (), [tuple(one.values()) for one in found])
        case "clean":
            only = options.only
            found = caches.clean(options.script) if only is None else caches.invalidate(options.script, only)
            text = f"{found} entries gone"
        case _:
            found = caches.fork(options.script, options.only)
            text = f"{found} entries copied"
    return _print(options, found, text)


def doctor(options: Namespace) -> int:
    """Print which engines are installed and answer, and what this machine allows."""
    from mlld_sdk.cli.doctor import diagnose

    report = diagnose(configuration(command_line={"store": options.store})["store"])
    _print(options, msgspec.to_builtins(report, enc_hook=str), str(report))
    return 0 if report.healthy else 1


def config(options: Namespace) -> int:
    """Print the effective settings, and where each of them comes from."""
    code = {} if options.file is None else _declared(Path(options.file))[1]
    found = configuration(code, {"store": options.store})
    return _print(options, found, str(found))


def evaluate(options: Namespace) -> int:
    """Run a line of mlld on an agent's engine and print its output."""
    found = _ask(options, p.Evaluate(agent=options.agent, script=options.script))
    return _print(options, found, found["output"].rstrip("\n"))


def demo(options: Namespace) -> int:
    """Break something for real and watch it heal."""
    from mlld_sdk.demo.stage import perform

    picture = options.picture or (Path("recovery.svg") if options.name == "recovery" else None)
    return perform(import_module(f"mlld_sdk.demo.{options.name}").play, options.engine, picture)


def run(options: Namespace) -> int:
    """Run a Python file that declares `tree` (and may declare `runtime_options`) as a service."""
    from mlld_sdk.runtime.runtime import EXIT_FORCED, Runtime
    from mlld_sdk.telemetry.log import log_events, stderr_logger

    path = Path(options.file)
    tree, declared = _declared(path)
    found = configuration(declared, {"store": options.store, "log": "off" if options.quiet else None})
    declared = {name: value for name, value in declared.items() if name not in ("log", "log_level")}
    named = {} if options.name is None else {"name": options.name}
    runtime = Runtime(tree, **{"name": path.stem, "control": True, **declared, **found.options(), **named})
    if found["log"] != "off":
        logger = stderr_logger(as_json=found["log"] == "json")
        log_events(runtime.bus, logger, debug=found["log_level"] == "debug")
    status = runtime.run_forever()
    if status == EXIT_FORCED:
        report = runtime.stop()
        for what, paths in (("had to be killed", report.killed), ("could not be ended and still ran", report.left)):
            if paths:
                print(f"mlld-otp: {what}: {', '.join(paths)}", file=sys.stderr)
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
