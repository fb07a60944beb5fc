"""Attach the milter to Postfix, and detach it.

A change is shown first, tried on a copy by postconf itself, applied, and proved by an SMTP session
that reaches the milter; if anything fails, everything is as before. What was there is recorded, so
that detach restores it byte for byte.
"""
