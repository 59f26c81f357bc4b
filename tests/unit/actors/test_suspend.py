"""A resume is never missed."""

from mlld_sdk.actors.core.future import Future
from mlld_sdk.actors.core.system import ActorSystem
from mlld_sdk.actors.core.system_messages import SystemRequest
from tests.support.actors import Puppet


def test_a_resume_that_comes_while_the_worker_lets_go_is_seen(system: ActorSystem) -> None:  # GEN-17
    ref = system.start(Puppet)
    ref.suspend()
    ref.tell("waiting")
    cell = ref.cell
    assert cell.mailbox.idle.acquire(timeout=10)  # the worker is at the end of a slice ...
    resumed: Future[None] = Future()
    cell.post_system(SystemRequest(lambda cell: setattr(cell.mailbox, "paused", False), resumed))
    assert cell.mailbox.has_work()  # ... and looks once more after letting go
    cell.mailbox.idle.release()
    ref.tell("next")
    resumed.get(timeout=10)
