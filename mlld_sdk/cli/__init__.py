"""The command line `mlld-otp`.

`main` reads the arguments, `commands` does what they ask, `render` prints tables, `settings` gathers what a service is
configured with, `doctor` looks at the machine. It attaches to running runtimes through `control`; nothing imports it.
"""
