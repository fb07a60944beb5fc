"""All that speaks with libmilter, and the only package that imports it.

A session has the state of a connection and of the message it is at; the message's is made new at
MAIL. A decision is carried out additions first: if that fails midway mail comes twice, but is not
lost. A fault is logged and answered 451.
"""
