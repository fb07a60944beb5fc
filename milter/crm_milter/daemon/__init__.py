"""The processes: a supervisor, workers that serve, an exporter.

The supervisor opens the socket, forks workers, and replaces those that die. A reload makes a new
generation, which serves before the old one drains; a bad file changes nothing. Sessions end with
the rules that they began with.
"""
