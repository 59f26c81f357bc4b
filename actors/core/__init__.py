"""The actor itself: its cell, mailbox, references, links, timers and exits, and the system that runs them."""
