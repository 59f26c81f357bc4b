"""State machines as actors, in the manner of `gen_statem`."""
