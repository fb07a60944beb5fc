"""What the sysadmin's commands know of Postfix: what it is set up to do, and how to change that.

Nothing here reads main.cf or master.cf by itself: ``postconf`` and ``postmap`` of the installed
Postfix say what they mean. The daemon imports nothing of this.

    postconf   parameters and services           tables     lookup tables
    domains    whose mail it takes, and to whom   milters    lists of milters, and ours in them
    placement  which smtpd ought to have ours     mapfile    our table of virtual aliases
    findings   lint, with the rules in lint_*     attach     attach and detach
"""
