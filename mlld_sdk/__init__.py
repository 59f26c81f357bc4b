"""Supervised mlld agents: actors that own their engine processes, supervisors that restart them, work that resumes."""
