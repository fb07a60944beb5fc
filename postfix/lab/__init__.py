"""A mail server for trials and tests: a private Postfix, sinks behind it, the milter next to it.

Everything lives in scratch folders and on free loopback ports, so several labs run side by side
and none touches an installed Postfix. A child of the lab never outlives it: it is stopped by
stop(), at the latest when the interpreter ends, and by the kernel where that is killed.

    sink.Sink          an SMTP server that records what arrives, to the byte
    smtp.Session       an SMTP client that sends what it is told, to the byte
    postfix.Postfix    a private Postfix that delivers every domain to a sink
    milter.Milter      "crm-milter serve" with a configuration
    whole.Lab          the four together

Only the standard library is used. A private Postfix needs root.
"""
