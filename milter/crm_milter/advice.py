"""What to do about the outcome of a probe: one place for the words."""

NOT_SEEN = (
    "is crm-milter running? systemctl status crm-milter",
    "is it attached to the smtpd that took the mail? crm-milter check --postfix",
    "has it read the rules? systemctl reload crm-milter",
    "is its log among those read? see --log",
)
UNLOGGED = ("the milter's own line about it was not found; is its log among those read?",)
OTHER_RULES = ("the running milter has other rules than the file: systemctl reload crm-milter",)
BOTH = ("enable_original_recipient must be yes: crm-milter check --postfix",)
COPY = ("the address is in also_deliver_to of the rule: is it right, and does it take mail?",)
HELD = ("postsuper -d deletes what is on hold; postsuper -H sends it on, to the CRM as well",)
NO_VERDICT = (
    "many filters pass over local clients and mynetworks: ask from outside with --via",
    "or let the filter look at this one (spamass-milter -i, rspamd local_networks)",
    "the filter must come before crm-milter: crm-milter check --postfix",
)
FILTER_REFUSED = (
    "such spam never comes near the CRM, but what the filter only marks is not proven by it",
    "make it mark a line of yours and send that with --spam-line; rspamd has enable_test_patterns",
)
LEFT = {
    "spam": ("the spam filter takes the probe for spam; see its log",),
    "no_verdict": NO_VERDICT,
    "loop": ("the sender is the target of the rule; see --from",),
    "auto_submitted": ("the rule leaves automatic mail, and something marks the probe as such",),
    "oversize": ("max_size of the rule is too small for any mail",),
    "no_target": ("what the pattern took gives no address in replace_with",),
    "ham": ("the filter takes the line for ham: is it the filter that the file names?",),
    "other": ("see the log of the milters: crm-milter trace",),
}


def waiting_target(words: str) -> tuple[str, ...]:
    """Return what to do about a delivery that Postfix will try again."""
    later = "postfix tries again by itself: crm-milter trace --failing"
    folded = words.lower()
    if "host not found" in folded or "name service error" in folded:
        return ("the name of the target's server is not found: is the address complete?", later)
    if "said:" in folded:
        return ("the CRM's server asks to come back later, as for greylisting or a limit", later)
    if "tls" in folded or "certificate" in folded:
        return ("the connection to the CRM cannot be encrypted: smtp_tls_security_level", later)
    return ("the CRM's server does not answer: is port 25 open towards it?", later)


def refused_target(words: str) -> tuple[str, ...]:
    """Return what to do about a delivery that failed for good."""
    folded = words.lower()
    if "host not found" in folded or "name service error" in folded or "null mx" in folded:
        return ("the target's domain takes no mail: compare replace_with with what the CRM shows",)
    if "5.7." in folded or "spf" in folded or "dmarc" in folded or "relay" in folded:
        return ("the CRM's server refuses this host or this sender, not the address; see --from",)
    if "loops back to myself" in folded:
        return ("postfix takes the target's domain for its own: crm-milter check --postfix",)
    return ("compare replace_with, letter by letter, with the address that the CRM shows",)
