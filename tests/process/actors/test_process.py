"""Actors at the edges of a process: its exit, its signals, and a fork. T-16 and T-17 of docs/semantics-actors.md."""

import subprocess
import sys
import textwrap

import pytest

HEAD = """
import os, sys, threading, time
from mlld_sdk.actors.core.actor import Actor, PykkaActor
from mlld_sdk.actors.core.errors import ActorError, ActorDead
from mlld_sdk.actors.core.system import default_system
from mlld_sdk.actors.core.system import ActorSystem

hanging = threading.Event()

class Says(Actor):
    def on_stop(self):
        print("stopped", flush=True)
    def on_receive(self, message):
        if message == "hang":
            print("hanging", flush=True)
            hanging.set()
            threading.Event().wait()
        return message
"""


def run(code: str, within: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", HEAD + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


def test_actors_of_the_default_system_are_stopped_at_the_interpreters_exit() -> None:  # T-16
    done = run("Says.start().ask('x'); print('end of main', flush=True)")
    assert done.stdout.split("\n")[:2] == ["end of main", "stopped"], done.stderr
    assert done.returncode == 0


def test_a_stuck_actor_does_not_keep_the_interpreter_from_ending() -> None:  # T-16
    done = run("ref = Says.start(); ref.tell('hang'); hanging.wait(); print('end of main', flush=True)")
    assert done.stdout.split() == ["hanging", "end", "of", "main"], done.stderr
    assert done.returncode == 0


def test_an_exception_in_main_still_stops_actors_and_shows() -> None:  # T-16
    done = run("Says.start(); raise ValueError('main failed')")
    assert "stopped" in done.stdout
    assert "main failed" in done.stderr
    assert done.returncode == 1


def test_leaving_the_with_block_reports_what_had_to_be_killed() -> None:  # T-16
    done = run(
        """
        system = ActorSystem()
        good, bad = system.start(Says), system.start(Says, name="bad")
        bad.tell("hang")
        hanging.wait()
        report = system.stop(0.5)
        print(report.clean, report.stopped, report.killed, [z.actor for z in report.zombies], flush=True)
        try:
            system.start(Says)
        except ActorError as error:
            print(error.code, flush=True)
        """
    )
    assert done.stdout.split("\n")[:4] == [
        "hanging",
        "stopped",
        "False 1 ('bad',) ['bad']",
        "SYSTEM_STOPPED",
    ], done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="needs fork")
def test_a_forked_copy_refuses_instead_of_hanging() -> None:  # T-17
    done = run(
        """
        system = ActorSystem()
        ref, shared = system.start(Says), Says.start()
        assert ref.ask("x") == "x"
        pid = os.fork()
        if pid == 0:
            for attempt in (lambda: ref.ask("x", timeout=60), lambda: ref.tell("x"), lambda: system.start(Says)):
                try:
                    attempt()
                    print("worked?", flush=True)
                except ActorError as error:
                    print(error.code, flush=True)
            print("new default:", Says.start().ask("fresh", timeout=60), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print("parent:", ref.ask("alive"), flush=True)
        system.stop()
        """
    )
    assert done.stdout.split("\n")[:5] == [
        "ACTOR_DEAD",
        "ACTOR_DEAD",
        "SYSTEM_STOPPED",
        "new default: fresh",
        "parent: alive",
    ], done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="needs fork")
def test_a_tree_in_a_forked_copy_stops_at_once_whatever_was_going_on() -> None:  # T-17
    done = run(
        """
        from mlld_sdk.supervision import Tree, child, dynamic, one_for_one

        def busy(tree):
            rooms = tree["rooms"].supervisor()
            try:
                while True:
                    rooms.terminate_child(rooms.start_child(child(Actor)))
            except ActorError:
                pass  # it has stopped

        codes = []
        for _ in range(40):
            system = ActorSystem()
            tree = Tree.start(system, one_for_one(child(Actor, name="a"), dynamic(name="rooms")))
            threading.Thread(target=busy, args=(tree,), daemon=True).start()
            pid = os.fork()
            if pid == 0:
                report = tree.stop(60)
                system.stop(60)
                os._exit(0 if "forked copy" in str(report.reason) and not tree.running else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            system.stop()
        print(codes == [0] * 40, codes)
        """
    )
    assert done.stdout.startswith("True"), done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="needs fork")
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_copy_that_a_handler_forks_and_comes_back_in_ends(kind: str) -> None:  # T-17
    done = run(
        f"""
        class Forks(Actor):
            {kind} on_receive(self, message):
                return os.fork()

        class ForksAlone(Actor):
            threaded = True
            def on_receive(self, message):
                return os.fork()

        for kind in (Forks, ForksAlone):
            system = ActorSystem()
            ref = system.start(kind)
            pid = ref.ask("fork", timeout=60)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), ref.is_alive(), flush=True)
            system.stop()
        """
    )
    assert done.stdout.split("\n")[:2] == ["70 True", "70 True"], done.stdout + done.stderr


def test_the_threads_of_a_system_that_nobody_has_end() -> None:
    done = run(
        """
        import gc
        system = ActorSystem("dropped")
        refs = [system.start(Says) for _ in range(5)]
        assert refs[0].ask("x") == "x"
        assert [t for t in threading.enumerate() if t.name.startswith("dropped")]
        del system, refs
        gc.collect()
        for thread in threading.enumerate():
            if thread.name.startswith("dropped"):
                thread.join(30)
        print([t.name for t in threading.enumerate() if t.name.startswith("dropped")])
        """
    )
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_a_keyboard_interrupt_reaches_a_main_thread_that_waits_for_an_answer() -> None:  # T-23
    done = run(
        """
        import signal
        over = threading.Event()

        def interrupted(*_):
            if not over.is_set():
                over.set()
                raise KeyboardInterrupt

        def interrupt():
            hanging.wait()
            while not over.wait(0.05):  # Python misses a signal that comes right before a wait, until the next
                os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, interrupted)
        ref = Says.start()
        threading.Thread(target=interrupt).start()
        try:
            ref.ask("hang")
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """
    )
    assert done.stdout.split() == ["hanging", "interrupted"], done.stderr
    assert done.returncode == 0


def test_ctrl_c_at_any_moment_of_a_managing_main_thread_hurts_no_supervisor() -> None:  # T-23
    done = run(
        """
        import random, signal
        from mlld_sdk.actors import current_actor
        from mlld_sdk.supervision import Tree, child, dynamic, one_for_one

        class Inline(Actor):
            caller_runs = True
            def on_receive(self, message):
                os.kill(os.getpid(), signal.SIGINT)
                self.sleep(0.2)

        chance = random.Random(7)
        with ActorSystem() as system, Tree.start(system, one_for_one(child(Says, name="a"), dynamic(name="d"))) as tree:
            root, rooms = tree.root, tree["d"].supervisor()
            for _ in range(60):
                timer = threading.Timer(chance.uniform(0, 0.01), os.kill, (os.getpid(), signal.SIGINT))
                try:
                    timer.start()
                    while True:
                        tree.supervisor.count_children()
                        rooms.terminate_child(rooms.start_child(child(Actor)))
                except KeyboardInterrupt:
                    assert current_actor() is None
            inline = system.start(Inline)
            try:
                inline.call("interrupt", timeout=30)
            except KeyboardInterrupt:
                print(root.is_alive(), rooms.ref.is_alive(), inline.is_alive(), tree["a"].call("alive"), flush=True)
        """
    )
    assert done.stdout.startswith("True True True alive"), done.stdout + done.stderr


def test_an_interrupt_during_a_start_leaves_nothing_that_nobody_has() -> None:  # T-23
    done = run(
        """
        import signal
        from mlld_sdk.supervision import Tree, child, one_for_one

        class Slow(Actor):
            def on_start(self):
                os.kill(os.getpid(), signal.SIGINT)
                self.sleep(0.5)

        system = ActorSystem()
        spec = one_for_one(child(Actor, name="a"), child(Slow, name="b"), child(Actor, name="c"))
        for start in (lambda: system.start(Slow, name="solo"), lambda: Tree.start(system, spec)):
            try:
                start()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            while system.actors():
                time.sleep(0.01)
        print(system.whereis("solo"), system.stop().clean, flush=True)
        """
    )
    assert done.stdout == "interrupted\ninterrupted\nNone True\n", done.stdout + done.stderr
