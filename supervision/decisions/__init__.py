"""What a supervisor does next, as pure functions.

`decide.step` takes a frozen state and what happened, and returns the state after it and a list of effects. No thread,
clock or actor is touched here; `supervision.execution` carries the effects out. Only supervision and its tests import
from this room.
"""
