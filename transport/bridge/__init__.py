"""The bridge engine: a Node program that loads the installed mlld package; see docs/extended-protocol.md.

`bridge.cjs` and its siblings run in Node; `transport` finds the package and makes the command that starts them. They
speak the protocol of the live engine with additions, so the rest of `transport` treats the bridge like any engine.
"""
