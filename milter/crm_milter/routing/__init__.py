"""What happens to a message: pure functions from an envelope to a decision.

In: policy, envelope, header fields. Out: a Decision, which is data: additions before removals, a
reply, and an outcome with its reason for every matched recipient. The log, ``explain`` and the
metrics say what stands in it. Nothing here knows a milter.
"""
