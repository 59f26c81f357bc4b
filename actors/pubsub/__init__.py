"""Topics and the outlets of those who listen."""
