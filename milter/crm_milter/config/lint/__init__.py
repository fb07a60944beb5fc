"""What is odd or wrong between keys that are each valid.

In: the rules and settings as read. Out: problems, noted at the lines they concern: rules that can
never apply, targets that a rule would take again, what the CRM of a target refuses.
"""
