"""Names for actors: registries of keys, and tables with an owner.

Everything here is data shared by threads, kept for live actors: reading costs no message, and what an actor holds is
gone before anyone learns of its end. It stands on `core` only; topics may use it. What users need of it is exported by
`mlld_sdk.actors`.
"""
