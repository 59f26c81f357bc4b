"""Topics and process groups: who wants what is broadcast, and who belongs together under a name.

A subscriber that is too slow loses messages rather than memory, and is told so. It stands on `core` and on the rows of
`registry`. What users need of it is exported by `mlld_sdk.actors`.
"""
