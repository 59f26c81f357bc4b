"""Tasks: one function run as an actor of its own, one handle on its result; supervised, and as lazy streams.

Enter through `Tasks`, which starts them; the actor, the bookkeeping of streams and the supervisor are private to the
room. It stands on `core` only.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.actors.tasks.errors import TaskExited as TaskExited
    from mlld_sdk.actors.tasks.errors import TaskTimeout as TaskTimeout
    from mlld_sdk.actors.tasks.errors import TooManyTasks as TooManyTasks
    from mlld_sdk.actors.tasks.streams import StreamOptions as StreamOptions
    from mlld_sdk.actors.tasks.streams import TaskStream as TaskStream
    from mlld_sdk.actors.tasks.task_actor import ancestors as ancestors
    from mlld_sdk.actors.tasks.task_actor import callers as callers
    from mlld_sdk.actors.tasks.task_supervisor import Tasks as Tasks
    from mlld_sdk.actors.tasks.task_supervisor import TaskSupervisor as TaskSupervisor
    from mlld_sdk.actors.tasks.task_supervisor import TooManyRestarts as TooManyRestarts
    from mlld_sdk.actors.tasks.tasks import BRUTAL_KILL as BRUTAL_KILL
    from mlld_sdk.actors.tasks.tasks import Exited as Exited
    from mlld_sdk.actors.tasks.tasks import Ok as Ok
    from mlld_sdk.actors.tasks.tasks import Task as Task
    from mlld_sdk.actors.tasks.tasks import await_many as await_many
    from mlld_sdk.actors.tasks.tasks import completed as completed
    from mlld_sdk.actors.tasks.tasks import yield_many as yield_many
else:
    __all__, __getattr__, __dir__ = exports(__name__)
