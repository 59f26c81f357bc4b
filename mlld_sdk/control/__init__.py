"""Attaching to a running runtime from another process, over a socket only its owner can open."""
