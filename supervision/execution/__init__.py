"""What carries a supervisor's decisions out.

The executor, the messages that reach it, its timers and breakers, and what all supervisors of a tree share. This is the
only part of supervision that starts, stops and kills actors; only `supervisor` and `tree` import from this room.
"""
