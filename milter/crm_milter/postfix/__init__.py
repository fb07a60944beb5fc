"""What the sysadmin's commands know of Postfix: what it is set up to do, and how to change that.

Nothing here reads main.cf or master.cf by itself: ``postconf`` and ``postmap`` of the installed
Postfix say what they mean. The daemon imports nothing of this.
"""
