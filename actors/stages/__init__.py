"""Stages: producers, consumers and what is between them, with demand that flows against the events.

A slow consumer slows its producer down, so memory is bounded without a queue anywhere. It stands on `core` and on the
feed of `pubsub`. What users need of it is exported by `mlld_sdk.actors`.
"""
