"""Tasks: one function, one handle; supervised, and as lazy streams."""
