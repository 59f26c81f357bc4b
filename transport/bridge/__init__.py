"""The bridge engine: mlld's own package driven by a Node program of ours."""
