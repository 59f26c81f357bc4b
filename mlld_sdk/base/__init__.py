"""What every other room stands on: errors, durations, clocks, events, spans, futures, options, lazy exports.

Everybody may come in; this room knows no other. Import from its modules: nothing is imported here, so that a part that
has to start quickly pays only for what it uses.
"""
