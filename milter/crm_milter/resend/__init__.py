"""What the CRM rejected, handed in again.

In goes a delivery report from the mailbox of ``dead_letters`` (RFC 3464, of any mail server), or
the message itself; out comes the message as it was sent, without our marker and to the byte, with
its sender and recipient, or one sentence that says why it is none of ours. What was handed in once
is not handed in again.
"""
