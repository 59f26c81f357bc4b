"""The embedded engine: a documented subset of mlld in plain Python, started as a program of its own.

`python -m mlld_sdk.transport.embedded live --stdio` speaks the protocol of `mlld live --stdio`. What it runs, how it
differs from the real engine and how it is made to misbehave on purpose is told in `docs/embedded.md`.
"""
