"""Supervision: child specs, strategies, restart intensity, backoff, breakers; the tree as data."""
