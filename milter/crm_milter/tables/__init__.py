"""Tables of routes that are asked for every recipient: SQLite files.

In: a file with the table ``routes(address, target)``, a key in normal form. Out: the targets of
its row, or None; TableError if the file cannot be read and the key is of one of its domains. No
row is kept in memory. ``feed`` writes such a file from a list, so that readers see all of it or
nothing.
"""
