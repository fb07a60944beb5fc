"""Which rule applies to a recipient.

In: the rules in their order, an address in normal form, the sender, whether the recipient has an
account. Out: the first rule that matches and whose conditions hold, with its targets, or None.
A look-up takes no longer with many rules than with few.
"""
