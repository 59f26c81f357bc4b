"""The client for programs without a runtime: handles, module-level functions and their twins for coroutines."""
