"""Agents and pools as a program declares and uses them."""
