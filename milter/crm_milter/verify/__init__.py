"""A test message, sent and followed through the log to the CRM's answer.

In: an address, the rules, an SMTP server, the log. Out: an outcome that the log proves, or that it
is not proved, with advice. Nothing counts as good because nothing bad was seen.
"""
