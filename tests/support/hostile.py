"""A little engine that misbehaves on request. Standard library only, so that `python -S -E` starts it in a few ms.

    hostile.py HABIT,HABIT,... live --stdio

Habits concern the process; what a single request does stands in its params: `{"do": [[verb, argument, ...], ...]}`.
A request whose verbs do not answer it is answered `{"output": "ok"}` at the end, unless one of them was `hang`.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time

HABITS = set(filter(None, sys.argv[1].split(","))) if len(sys.argv) > 1 else set()
OPEN = {}
READ = int(os.environ.get("MLLD_ENGINE_REQUEST_FD", 0))
WRITE = int(os.environ.get("MLLD_ENGINE_RESPONSE_FD", 1))


def write(data):
    if "dribble" in HABITS:
        for at in range(0, len(data), 7):
            os.write(WRITE, data[at : at + 7])
        return
    view = memoryview(data)
    while view:
        view = view[os.write(WRITE, view) :]


def say(message):
    text = json.dumps(message, ensure_ascii="ascii" in HABITS, separators=(",", ":"))
    write(text.encode("utf-8", "surrogatepass") + b"\n")


def event(id_, type_, **fields):
    ids = {"requestId": id_, "id": id_} if "dialect21" in HABITS else {"id": id_}
    say({"event": {**ids, "type": type_, **fields}})


def answer(id_, payload):
    if "dialect21" in HABITS:
        if isinstance(payload, dict) and "id" not in payload:
            payload = {**payload, "id": id_}
        say({"id": id_, "result": payload})
    elif isinstance(payload, dict) and "id" not in payload:
        say({"result": {"id": id_, **payload}})
    else:
        say({"result": {"id": id_, "value": payload}})


def fail(id_, code, message, **more):
    error = {"code": code, "message": message, **more}
    if "dialect21" in HABITS:
        say({"id": id_, "error": error, "result": {"id": id_, "error": error}})
    else:
        say({"result": {"id": id_, "error": error}})


def spawn(argv, own_session, quiet):
    out = subprocess.DEVNULL if quiet else None
    return subprocess.Popen(argv, start_new_session=own_session, stdin=subprocess.DEVNULL, stdout=out, stderr=out).pid


def carry_out(id_, method, verbs):
    for verb, *arg in verbs:
        if verb == "answer":
            return answer(id_, *arg)
        if verb == "fail":
            return fail(id_, *arg[:2], **(arg[2] if len(arg) > 2 else {}))
        if verb == "event":
            event(id_, arg[0], **(arg[1] if len(arg) > 1 else {}))
        elif verb == "events":
            write(
                b"".join(
                    b'{"event":{"id":%d,"type":"state:write","write":{"path":"n","value":%d}}}\n' % (id_, n)
                    for n in range(arg[0])
                )
            )
        elif verb == "tool":
            say({"event": {"id": "tool-1", "type": "streaming:tool-use", "name": "Read", "input": {}}})
        elif verb == "print":
            write(arg[0].encode("utf-8", "surrogatepass"))
        elif verb == "bytes":
            write(bytes.fromhex(arg[0]))
        elif verb == "flood":
            while True:
                write(arg[0].encode() * 100)
        elif verb == "warn":
            os.write(2, arg[0].encode() * (arg[1] if len(arg) > 1 else 1))
        elif verb == "answer-as":  # forge: answer somebody else's request
            answer(arg[0], {"output": "forged"})
        elif verb == "spawn":
            event(id_, "spawned", pid=spawn(["sleep", "300"], arg[0] == "session", "quiet" in arg))
        elif verb == "threads":
            for _ in range(arg[0]):
                threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
        elif verb == "environ":
            return answer(id_, {"output": os.environ.get(arg[0], "")})
        elif verb == "touch":
            with open(os.path.join(os.environ["TMPDIR"], arg[0]), "w") as file:
                file.write("x")
        elif verb == "exit":
            sys.stdout.flush()
            os._exit(arg[0])
        elif verb == "signal":
            os.kill(os.getpid(), arg[0])
        elif verb == "block":
            time.sleep(arg[0])
        elif verb == "close-output":
            os.close(WRITE)
        elif verb == "hang":
            OPEN[id_] = method
            return None
        elif verb == "late":  # not active for a while: control requests are refused meanwhile
            LATE[id_] = time.monotonic() + arg[0]
    return answer(id_, {"output": "ok"})


LATE = {}


def handle(request):
    id_, method, params = request.get("id"), request.get("method"), request.get("params")
    if method == "cancel":
        if "mute" in HABITS:
            return
        if id_ not in OPEN or LATE.get(id_, 0) > time.monotonic():
            fail(id_, "REQUEST_NOT_FOUND", f"No active request for id {id_}")
            return
        code = "ABORTED" if OPEN.pop(id_) == "process" else "RUNTIME_ERROR"
        fail(id_, code, "StreamExecution aborted")
        if "fragile" in HABITS:
            os.write(2, b"Error: StreamExecution aborted\n")
            os._exit(1)
    elif method in ("state:update", "file:write"):
        target = params["requestId"]
        if target not in OPEN or LATE.get(target, 0) > time.monotonic():
            fail(id_, "REQUEST_NOT_FOUND", f"No active request for id {target}")
            return
        answer(id_, {"requestId": target, "path": params["path"]})
        if params["path"] == "finish":
            OPEN.pop(target)
            answer(target, {"output": "finished"})
    elif method in ("process", "execute", "analyze"):
        verbs = params.get("do", []) if isinstance(params, dict) else []
        carry_out(id_, method, verbs)
        if "echo" in HABITS:
            event(id_, "late")
    elif "extended" in HABITS and method == "hello":
        answer(id_, {"engine": "hostile", "protocol": 1, "id": None})
    else:
        fail(id_, "METHOD_NOT_FOUND", f"Method '{method}' is not supported")


def main():
    if "stubborn" in HABITS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "dies" in HABITS:
        os.write(2, b"first line\nError: Cannot find module 'x'\n")
        os._exit(3)
    if "babbles" in HABITS:
        while True:
            write(b"Welcome to the shell!\n")
            time.sleep(0.01)
    if "deaf" in HABITS:
        while True:
            time.sleep(60)
    if "heap" in HABITS:
        os.write(2, b"FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory\n")
        os.kill(os.getpid(), signal.SIGABRT)
    rest = b""
    while True:
        data = os.read(READ, 65536)
        if not data:
            while "stubborn" in HABITS:
                time.sleep(60)
            return
        rest += data
        *lines, rest = rest.split(b"\n")
        for line in lines:
            handle(json.loads(line))


main()
