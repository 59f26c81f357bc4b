"""What a call to mlld says and what it answers: parameters, results, streams of events, types.

Pure functions and plain values on top of the wire's envelopes, for every kind of engine and every dialect of its
protocol. Clients, agents and runs come in; nothing here starts, waits for or ends a process.
"""
