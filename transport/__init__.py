"""Engine processes and the protocol with them: starting, asking, cancelling, ending, and leaving nothing behind.

`engine.Engine` is the door: it has a child process, a channel, a table of calls, a reader that lends the channel to
callers, and an ending. `command` says how engines are started, `wire` what is said, `errors` and `events` what is told.
`embedded` is an engine of its own that runs in a child process, `bridge` one that runs on Node. Rooms above (`engines`,
`client`, `agents`) may use all of it but underscore names; it knows only `base`. Nothing is imported here, so that the
embedded engine starts with what it needs and no more.
"""
