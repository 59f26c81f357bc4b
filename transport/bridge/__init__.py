"""The bridge engine: a Node program that loads the installed mlld package; see docs/extended-protocol.md."""
