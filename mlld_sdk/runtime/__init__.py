"""The runtime that carries a tree of agents inside a service."""
