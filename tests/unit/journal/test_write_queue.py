"""Callers of one commit wake each other, and nobody is forgotten when one of them has gone."""

import threading
from pathlib import Path

from mlld_sdk.journal.sqlite.write_queue import DONE, GONE, TAKEN, QueuedWrite, WriteBatch
from tests.support.eventually import eventually
from tests.support.journal import quick


def taken(number: int) -> list[QueuedWrite]:
    writes = [QueuedWrite(lambda tx: None) for _ in range(number)]
    for write in writes:
        write.state = TAKEN
    return writes


def states(writes: list[QueuedWrite]) -> list[bool]:
    return [write.state == DONE for write in writes]


def test_each_caller_wakes_the_next_in_turn() -> None:
    writes = taken(3)
    batch = WriteBatch(writes)
    assert states(writes) == [True, False, False]
    assert writes[0].wait(60)
    assert states(writes) == [True, True, False]
    assert writes[1].wait(60)
    assert writes[2].wait(60)
    assert not batch.left


def test_who_has_gone_is_passed_over() -> None:
    writes = taken(4)
    writes[0].state = writes[1].state = GONE
    WriteBatch(writes)
    assert states(writes) == [True, True, True, False]


def test_whose_time_is_up_while_others_are_woken_wakes_the_next_too() -> None:
    writes = taken(3)
    WriteBatch(writes)
    assert not writes[1].wait(0)  # not its turn yet
    assert states(writes) == [True, True, False]


def test_all_who_are_left_can_be_woken_at_once() -> None:
    writes = taken(5)
    batch = WriteBatch(writes)
    batch.wake_all()
    assert states(writes) == [True] * 5
    assert not batch.left


def test_the_writer_wakes_whoever_was_not_woken(tmp_path: Path) -> None:  # J-61
    with quick(tmp_path / "journal.db") as journal:
        gate, entered = threading.Event(), threading.Event()
        left = QueuedWrite(lambda tx: None)  # a caller that was interrupted: it will wake nobody
        results: list[object] = []

        def block(tx: object) -> None:
            journal._store._writer._queue.put(left)  # type: ignore[attr-defined]
            entered.set()
            gate.wait(60)

        def submit(n: int) -> None:
            results.append(journal.submit("a", n).state)

        threads = [threading.Thread(target=journal._store.write, args=(journal.session, block, 20))]
        threads[0].start()
        assert entered.wait(60)
        threads += [threading.Thread(target=submit, args=(n,)) for n in range(4)]
        for thread in threads[1:]:
            thread.start()
        eventually(lambda: journal.status().store.queued >= 5)
        gate.set()  # one commit for all of them
        for thread in threads:
            thread.join(60)
        assert results == ["pending"] * 4
        assert left.state == DONE
