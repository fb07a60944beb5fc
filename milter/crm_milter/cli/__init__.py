"""The commands: their arguments, and what they print.

Results go to stdout, diagnostics to stderr. Exit status 0: success; 1: failure, or a problem was
found; 2: usage; 78: the configuration is invalid. ``serve`` imports nothing of the other commands.
"""
