"""The engine process: options, lines of JSON in and out, requests and their parameters, misbehaviour on command.

`server.EmbeddedServer` is started by `python -m mlld_sdk.transport.embedded`. The other modules answer one method of
the protocol each, or imitate one habit of the real engine.
"""
