"""The actor itself: its cell and incarnations, mailbox, references, links, timers, exits, and the system that runs them."""
