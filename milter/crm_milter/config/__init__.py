"""The YAML file and those it names.

In: a path. Out: a Config that is valid as a whole, with warnings; or ConfigError with every
problem, each with file, line and key. Every key is described once, in ``keys``, for reading, for
lint and for editors.
"""
