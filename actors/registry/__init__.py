"""Names for actors: registries, process groups and shared tables."""
