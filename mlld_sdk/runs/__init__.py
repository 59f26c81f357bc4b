"""Durable runs: the job with its steps, the handle of a run, retries and sleeps."""
