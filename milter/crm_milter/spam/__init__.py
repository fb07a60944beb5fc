"""What the spam filter said of a message.

In: its header fields, and the filters that the configuration trusts. Out: a Judgement, which is
spam, ham, none or conflicting, with the field that decided. One spam outweighs any number of ham;
no field and no text of a client raises an exception.
"""
