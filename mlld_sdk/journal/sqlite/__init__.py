"""The journal's store in a SQLite file."""
