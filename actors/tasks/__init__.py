"""Tasks: one function run as an actor of its own, one handle on its result; supervised, and as lazy streams.

Enter through `Tasks`, which starts them; the actor, the bookkeeping of streams and the supervisor are private to the
room. It stands on `core` only. What users need of it is exported by `mlld_sdk.actors`.
"""
