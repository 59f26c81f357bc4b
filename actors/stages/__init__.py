"""Producers and consumers with demand: nothing is emitted that was not asked for."""
