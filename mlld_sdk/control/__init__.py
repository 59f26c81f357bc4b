"""Attaching to a running runtime from another process, over a socket only its owner can open.

`protocol` has the requests and answers, `server` answers them on the runtime's side, `client` asks them from another
process. The runtime starts the server; the command line is the client, and what else looks at a runtime from outside
needs `protocol` and `client` only.
"""
