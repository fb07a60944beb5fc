"""What forwarded mail to a CRM so far, as rules.

In: tables of virtual aliases as Postfix reads them, or lists of addresses with their targets. Out:
rules and a table of addresses that lead the same addresses to the same targets, the entries that
have to go, and every line that was not understood, with its reason. Nothing is read but these
files, and nothing is changed.
"""
