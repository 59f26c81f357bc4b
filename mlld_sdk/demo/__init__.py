"""Demonstrations: each breaks something for real and shows it heal."""
