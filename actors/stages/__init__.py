"""Stages: producers, consumers and what is between them, with demand that flows against the events.

A slow consumer slows its producer down, so memory is bounded without a queue anywhere. It stands on `core`
and on the feed of `pubsub`.
"""

from typing import TYPE_CHECKING

from mlld_sdk.base.lazy import exports

if TYPE_CHECKING:
    from mlld_sdk.actors.stages.errors import DemandExceeded as DemandExceeded
    from mlld_sdk.actors.stages.event_stream import EventStream as EventStream
    from mlld_sdk.actors.stages.producers import Consumer as Consumer
    from mlld_sdk.actors.stages.producers import Producer as Producer
    from mlld_sdk.actors.stages.producers import ProducerConsumer as ProducerConsumer
else:
    __all__, __getattr__, __dir__ = exports(__name__)
