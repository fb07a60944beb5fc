"""Messages through the rules without a Postfix: nothing is sent, nothing is changed.

In: a policy, and messages from a file, from test cases or from old mailboxes. Out: for each what
the daemon would decide, by the daemon's own functions, and what that means: a story, a failed
expectation, figures for each rule. Works where there is no libmilter.
"""
