"""The mail log: what became of messages.

In: files or the journal, a queue id or an address. Out: the lines of each message in order,
Postfix's joined with those of crm-milter, as text or JSON; and the targets that mail does not
reach. A line that is not understood is text, never an error.
"""
