"""Actors with OTP guarantees on Pykka: mailboxes, scheduling, lifecycle, links, monitors, names, timers, tasks."""
