"""Processes that die at every durable write, at random moments, and two that want the same run."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlld_sdk.journal import Failed, Fresh, Replay
from mlld_sdk.journal.crashpoints import CRASH_POINTS, VARIABLE
from mlld_sdk.journal.errors import LeaseHeld, RunEnded
from tests.support.eventually import eventually
from tests.support.journal import AGAIN, begin, python, quick

EVERYTHING = r"""
import os, signal, sys, json
from pathlib import Path
from mlld_sdk.journal import *
from mlld_sdk.journal import crashpoints
from mlld_sdk.journal.errors import *
from tests.support.journal import quick, begin, AGAIN

folder = Path(sys.argv[1])
acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
effects = os.open(folder / "effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def say(fd, **facts):
    os.write(fd, (json.dumps(facts) + "\n").encode())

def step(journal, lease, position, value):
    say(effects, run=lease.run_id, position=position, what="asked")
    begun = begin(journal, lease, position)
    if isinstance(begun, Fresh):
        say(effects, run=lease.run_id, position=position, what="acted", attempt=begun.attempt)
        lease.finish_step(position, value)
        say(acknowledged, what="step", run=lease.run_id, position=position, value=value)

quick(folder / "journal.db").close()
for _ in range(2):  # processes die while they have a step of g under way: it will be in quarantine
    if not os.fork():
        crashpoints.armed = ""
        gone = quick(folder / "journal.db")
        gone.submit("k", "g", run_id="g")
        begin(gone, gone.claim("g", "w"), "1")
        os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
with quick(folder / "journal.db") as journal:
    for name in "abcdef":
        journal.submit("k", name, run_id=name)
        say(acknowledged, what="run", run=name)
    a = journal.claim("a", "w")
    say(acknowledged, what="claim", run="a")
    step(journal, a, "1", 1)
    begin(journal, a, "2")
    a.fail_step("2", ValueError("known"))
    say(acknowledged, what="failed", run="a", position="2")
    a.note("receipt")
    say(acknowledged, what="event", run="a")
    a.renew()
    a.sleep_until(0.0)
    step(journal, a, "3", 3)
    a.finish_run("done")
    say(acknowledged, what="outcome", run="a", state="finished")
    b, c = journal.claim_unfinished("k", "w", limit=2)
    step(journal, b, "1", 1)
    b.fail_run(ValueError("b"))
    say(acknowledged, what="outcome", run="b", state="failed")
    step(journal, c, "1", 1)
    c.park_run("look")
    say(acknowledged, what="outcome", run="c", state="parked")
    d = journal.claim("d", "w")
    step(journal, d, "1", 1)
    d.release()
    d = journal.claim("d", "w2")
    step(journal, d, "1", 1)
    step(journal, d, "2", 2)
    d.abandon("died")
    journal.cancel("e", "not needed")
    say(acknowledged, what="outcome", run="e", state="cancelled")
    f = journal.claim("f", "w")
    begin(journal, f, "1")
    f.park_run("unclear")
    journal.resolve_step("f", "1", "by hand")
    say(acknowledged, what="step", run="f", position="1", value="by hand")
    journal.retry("f")
    say(acknowledged, what="retried", run="f")
    g = journal.claim("g", "w")
    begin(journal, g, "1")
    g.finish_step("1", "survived")
    say(acknowledged, what="step", run="g", position="1", value="survived")
    g.finish_run("done")
    journal.backup(folder / "copy.db")
    say(acknowledged, what="backup")
    journal.prune(keep_last=1000)
print("reached the end")
"""


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def check_promises(folder: Path) -> None:
    """Everything that was confirmed is there, nothing is half done, and all that is unfinished can be finished."""
    with quick(folder / "journal.db") as journal:
        assert journal.verify() == []
        later = {fact["run"]: fact for fact in lines(folder / "acknowledged") if fact["what"] == "retried"}
        for fact in lines(folder / "acknowledged"):
            run_id = str(fact.get("run", ""))
            match fact["what"]:
                case "run":
                    assert journal.input(run_id) == run_id
                case "step":
                    found = journal.step(run_id, str(fact["position"]))
                    assert found is not None
                    assert (found.state, journal.step_result(found)) == ("finished", fact["value"])
                case "failed":
                    found = journal.step(run_id, str(fact["position"]))
                    assert found is not None
                    assert (found.state, found.final) == ("failed", True)
                case "event":
                    assert [event.name for event in journal.events(run_id=run_id)] == ["receipt"]
                case "outcome" if run_id not in later:
                    outcome = journal.outcome(run_id)
                    assert outcome is not None
                    assert outcome.state == fact["state"] or journal.run(run_id).state == "pending"
                case "retried":
                    assert journal.run(run_id).state in ("pending", "running")
                case "backup":
                    with quick(folder / "copy.db") as copy:
                        assert copy.verify() == []
        acted = [(e["run"], e["position"]) for e in lines(folder / "effects") if e["what"] == "acted"]
        assert len(acted) == len(set(acted)), "a finished step acted twice"
        for lease in journal.claim_unfinished(None, "next", limit=100):  # at once: the dead are known to be dead
            for recorded in journal.steps(lease.run_id):
                again = lease.begin_step(
                    recorded.position, recorded.name, journal.fingerprint(recorded.name, recorded.position), AGAIN
                )
                assert isinstance(again, {"finished": Replay, "failed": Failed}.get(recorded.state, Fresh))
                if isinstance(again, Fresh):
                    lease.finish_step(recorded.position, "second attempt")
            lease.finish_run("finished by the next owner")
        assert set(journal.status().runs) <= {"finished", "failed", "cancelled", "parked"}
        assert journal.verify() == []


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_nothing_confirmed_is_lost_wherever_the_process_dies(point: str, tmp_path: Path) -> None:  # J-60, J-90
    turn = 5 if point.startswith("commit") else 1
    child = python(EVERYTHING, str(tmp_path), env={VARIABLE: f"{point}:{turn}"})
    out, err = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, f"{point} was never reached: {out}{err}"
    check_promises(tmp_path)


def test_the_same_program_runs_to_its_end_when_nothing_kills_it(tmp_path: Path) -> None:
    child = python(EVERYTHING, str(tmp_path))
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, "reached the end\n"), err
    check_promises(tmp_path)


def test_a_crash_point_that_does_not_exist_is_refused_at_once() -> None:  # J-90
    child = python("from mlld_sdk.journal import Journal", env={VARIABLE: "nowhere.after"})
    _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "nowhere.after" in err


WRITERS = r"""
import os, sys, threading
from pathlib import Path
from mlld_sdk.journal import Journal
from tests.support.journal import act

journal = Journal.open(sys.argv[1], durability=sys.argv[2], retention=None)
def work(lease):
    n = 0
    while True:
        n += 1
        act(journal, lease, str(n), {"n": n, "text": "x" * 100})
        os.write(1, f"{lease.run_id} {n}\n".encode())
for _ in range(8):
    threading.Thread(target=work, args=(journal.claim(journal.submit("k").id, "w"),)).start()
"""


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_no_confirmed_step_is_lost_when_a_busy_process_is_killed(durability: str, tmp_path: Path) -> None:  # J-60
    path, log = tmp_path / "journal.db", tmp_path / "log"
    for _ in range(3):
        with log.open("ab") as out:
            child = subprocess.Popen(
                [sys.executable, "-c", WRITERS, str(path), durability], stdout=out, cwd=Path(__file__).parents[3]
            )
            size = log.stat().st_size
            eventually(lambda size=size: log.stat().st_size > size + 4000, within=60)
            child.kill()
            child.wait()
    confirmed = [line.split() for line in log.read_text().splitlines() if line.count(" ") == 1]
    with quick(path) as journal:
        assert journal.verify() == []
        stored = {
            run.id: {step.position for step in journal.steps(run.id) if step.state == "finished"}
            for run in journal.runs()
        }
        assert 3 <= len(stored) <= 24
        lost = [(run, n) for run, n in confirmed if n not in stored[run]]
        assert lost == []
        assert len(confirmed) > 300


FIGHTER = r"""
import os, sys, time
from mlld_sdk.journal import *
from mlld_sdk.journal.errors import *
from tests.support.journal import quick, begin, AGAIN

me, path, log = sys.argv[1:4]
out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
journal = quick(path)
print("ready", flush=True)
sys.stdin.readline()
while True:
    runs = journal.claim_unfinished("contested", me, limit=2)
    for lease in runs:
        try:
            for n in range(1, 4):
                begun = begin(journal, lease, str(n))
                if isinstance(begun, Fresh):
                    os.write(out, f"{lease.run_id} {n} {lease.epoch} {me}\n".encode())
                    lease.finish_step(str(n), me)
            if lease.attempt < 3:
                lease.release()
            else:
                lease.finish_run(me)
        except LeaseLost:
            os.write(out, f"{lease.run_id} lost {lease.epoch} {me}\n".encode())
    if not runs and not journal.runs(kind="contested", states=["pending", "running"], limit=1):
        break
journal.close()
"""


def test_processes_that_want_the_same_runs_never_own_one_together(tmp_path: Path) -> None:  # J-30, J-62
    path, log = tmp_path / "journal.db", tmp_path / "log"
    with quick(path) as journal:
        for n in range(30):
            journal.submit("contested", n)
        children = [python(FIGHTER, f"p{n}", str(path), str(log), stdin=subprocess.PIPE) for n in range(3)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            _, err = child.communicate(timeout=60)
            assert child.returncode == 0, err
        assert journal.status().runs == {"finished": 30}
        rows = [line.split() for line in log.read_text().splitlines()]
        acted = [(run, n) for run, n, _, _ in rows if n != "lost"]
        assert len(acted) == len(set(acted)) == 90, "a step acted under two owners"
        assert not [row for row in rows if row[1] == "lost"], "nobody was late, so nobody may lose a lease"
        owners = {(run, epoch): me for run, _, epoch, me in rows}
        assert all(owners[run, epoch] == me for run, _, epoch, me in rows), "one epoch had two owners"
        assert len({me for *_, me in rows}) > 1


HOLDER = r"""
import sys, threading
from tests.support.journal import quick, begin
journal = quick(sys.argv[1])
lease = journal.claim(sys.argv[2], "holder", ttl=float(sys.argv[3]))
begin(journal, lease, "1")
print("owned", flush=True)
sys.stdin.readline()
try:
    lease.finish_step("1", "late")
    print("written", flush=True)
except Exception as error:
    print(type(error).__name__, flush=True)
"""


def hold(path: Path, run_id: str, ttl: float) -> subprocess.Popen[str]:
    child = python(HOLDER, str(path), run_id, str(ttl), stdin=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == "owned\n"
    return child


def test_the_runs_of_a_killed_process_are_free_at_once(tmp_path: Path) -> None:  # J-31
    path = tmp_path / "journal.db"
    with quick(path) as journal:
        run = journal.submit("k")
        child = hold(path, run.id, 3600)
        with pytest.raises(LeaseHeld, match="holder"):
            journal.claim(run.id, "me")
        child.kill()
        child.communicate()
        [lease] = journal.claim_unfinished("k", "me")
        [death] = journal.run(run.id).deaths
        assert (death.owner, death.reason, death.in_flight) == ("holder", "its process ended", ("1",))
        assert begin(journal, lease, "1").attempt == 2


def test_a_link_to_the_file_is_the_same_journal(tmp_path: Path) -> None:  # J-31
    path, link = tmp_path / "journal.db", tmp_path / "link" / "other.db"
    link.parent.mkdir()
    link.symlink_to(path)
    with quick(path) as journal, quick(link) as linked:
        run = journal.submit("k")
        journal.claim(run.id, "me")
        with pytest.raises(LeaseHeld):
            linked.claim(run.id, "other")
    assert sorted(file.name for file in link.parent.iterdir()) == ["other.db"]


def test_a_stopped_process_that_comes_back_late_finds_its_word_refused(tmp_path: Path) -> None:  # J-31, J-32
    path = tmp_path / "journal.db"
    with quick(path) as journal:
        run = journal.submit("k")
        child = hold(path, run.id, 0.5)
        child.send_signal(signal.SIGSTOP)

        def take_over() -> object:
            try:
                return journal.claim(run.id, "me")
            except LeaseHeld:
                return None

        lease = eventually(take_over)
        assert begin(journal, lease, "1").attempt == 2
        child.send_signal(signal.SIGCONT)
        out, _ = child.communicate("go\n", timeout=60)
        assert out == "LeaseLost\n"
        assert lease.finish_step("1", "mine") == "mine"
        assert journal.step_result(journal.steps(run.id)[0]) == "mine"


def test_a_living_process_renews_its_leases_by_itself(tmp_path: Path) -> None:  # J-33
    path = tmp_path / "journal.db"
    with quick(path) as journal:
        run = journal.submit("k")
        child = hold(path, run.id, 0.3)
        first = journal.run(run.id).owner
        assert first is not None
        eventually(lambda: journal.run(run.id).owner.until > first.until + 1)  # type: ignore[union-attr]
        with pytest.raises(LeaseHeld):
            journal.claim(run.id, "me")
        out, _ = child.communicate("go\n", timeout=60)
        assert out == "written\n"


def test_a_waiter_is_woken_by_the_end_of_a_run_in_another_process(tmp_path: Path) -> None:  # J-22
    path = tmp_path / "journal.db"
    code = (
        "import sys; from tests.support.journal import quick\n"
        "with quick(sys.argv[1]) as journal:\n"
        "    sys.stdin.readline(); journal.claim(sys.argv[2], 'w').finish_run({'from': 'afar'})\n"
    )
    with quick(path, poll_interval=0.02) as journal:
        run = journal.submit("k")
        told: list[object] = []
        journal.on_outcome(run.id, lambda outcome: told.append(outcome.value))
        child = python(code, str(path), run.id, stdin=subprocess.PIPE)
        child.communicate("go\n", timeout=60)
        assert child.returncode == 0
        assert journal.wait(run.id, 20).value == {"from": "afar"}
        assert eventually(lambda: told) == [{"from": "afar"}]
        with pytest.raises(RunEnded):
            journal.claim(run.id, "me")


def test_many_processes_may_open_a_new_file_at_the_same_moment(tmp_path: Path) -> None:  # J-62
    code = (
        "import sys; from tests.support.journal import quick\n"
        "with quick(sys.argv[1]) as journal:\n"
        "    for n in range(20): journal.submit('k', n, key=f'{sys.argv[2]}-{n}')\n"
    )
    children = [python(code, str(tmp_path / "journal.db"), str(n)) for n in range(4)]
    for child in children:
        _, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
    with quick(tmp_path / "journal.db") as journal:
        assert journal.status().runs == {"pending": 80}
        assert list((tmp_path / "journal.db-sessions").iterdir()) != []
    assert list((tmp_path / "journal.db-sessions").iterdir()) == []


def test_a_forked_child_is_told_to_open_its_own_and_does_not_keep_its_parent_alive(tmp_path: Path) -> None:  # J-62
    path = tmp_path / "journal.db"
    code = r"""
import os, sys
from tests.support.journal import quick
from mlld_sdk.journal.errors import JournalClosed
journal = quick(sys.argv[1])
lease = journal.claim(sys.argv[2], "parent")
if os.fork() == 0:
    try:
        journal.submit("k", 2)
    except JournalClosed:
        print("refused", flush=True)
    os.close(1)
    sys.stdin.readline()
    os._exit(0)
os.kill(os.getpid(), 9)
"""
    with quick(path) as journal:
        run = journal.submit("k", 1)
        child = python(code, str(path), run.id, stdin=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == "refused\n"
        child.wait(60)
        assert journal.claim(run.id, "me").attempt == 2  # though the child still runs
        child.communicate("end\n")
