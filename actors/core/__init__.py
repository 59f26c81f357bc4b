"""The actor itself: its cell with mailbox and runner, references, links, timers and exits, and the system around it.

`mlld_sdk.actors` exports what users need; other rooms import the module they mean. Lower files know upper ones only by
`protocols`: errors, exits and timers lie at the bottom, then futures, mailboxes and references, then the cell and what
runs it, then the system, and `actor` on top.
"""
