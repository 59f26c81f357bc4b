"""The journal's store in a SQLite file.

`store` is the open file; `writer` and `write_queue` gather the writes of many threads into one commit; `schema`,
`sessions` and `faults` are tables and versions, signs of life and errors. Only `Journal.open` comes in.
"""
