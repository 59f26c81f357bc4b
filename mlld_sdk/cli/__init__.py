"""The command line `mlld-otp`."""
