"""Running scripts: values and their labels, scopes, functions, loops, shell commands and the checkpoint cache.

`interpreter.run_script` runs a parsed script; `script_run.ScriptRun` collects what the script does. The server comes
in here, and no other room.
"""
