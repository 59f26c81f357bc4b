"""Waiting in tests of real processes: until it is so, or the deadline says it never will be."""

from mlld_sdk.testing import eventually

__all__ = ["eventually"]
