"""The one way from a request to an engine process."""
