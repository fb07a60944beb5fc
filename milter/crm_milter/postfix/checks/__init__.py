"""What is wrong between the configuration and this Postfix.

In: a Site, which is both of them. Out: findings: what, why it matters, and the command that fixes
it. One module per subject; ``run`` has them all, in order.
"""
