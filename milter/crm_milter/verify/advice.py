"""What to do about the outcome of a probe: one place for the words."""

from crm_milter.verify.relayhost import Relayhost

NOT_SEEN = (
    "is crm-milter running? systemctl status crm-milter",
    "is it attached to the smtpd that accepted the message? crm-milter check --postfix",
    "has it loaded the current rules? systemctl reload crm-milter",
    "is its log being read? see --log",
)
UNLOGGED = ("crm-milter's own log line was not found: is its log being read? see --log",)
OTHER_RULES = (
    "the running milter uses different rules from the file: systemctl reload crm-milter",
)
BOTH = ("enable_original_recipient must be yes: crm-milter check --postfix",)
COPY = ("check the address in the rule's also_deliver_to: is it correct, and does it accept mail?",)
HELD = ("postsuper -H releases the message (to the CRM as well); postsuper -d deletes it",)
NO_VERDICT = (
    "many filters skip local clients and mynetworks: send through an outside server with --via",
    "or make the filter scan mail from this host (see spamass-milter -i, rspamd local_networks)",
    "the filter must come before crm-milter: crm-milter check --postfix",
)
FILTER_REFUSED = (
    (
        "the filter rejects this spam outright, so it cannot reach the CRM; mail that the"
        " filter only marks was not tested"
    ),
    (
        "have the filter mark a test line of your own and send it with --spam-line (rspamd:"
        " enable_test_patterns)"
    ),
)
AUTHENTICATION = (
    "this service is for mail clients that log in: name the smtpd for mail from outside with --via",
)
LEFT = {
    "spam": ("the spam filter classified the test message as spam; see its log",),
    "no_verdict": NO_VERDICT,
    "loop": ("the sender is the target of the rule; see --from",),
    "automatic": (
        "the rule does not reroute automatic mail, and something marked the test message as"
        " automatic",
    ),
    "unauthenticated": (
        "the filter's Authentication-Results has dmarc=fail for the test message: send it from an"
        " address of your own domain, see --from",
    ),
    "oversize": ("the rule's max_size is smaller than the test message",),
    "flood": (
        "the rule has routed as much of this sender as its flood limit allows; wait, or put the"
        ' sender of tests into "except"',
    ),
    "no_target": ("replace_with, filled in from the pattern, is not a valid address",),
    "ham": (
        'the filter did not mark the test line as spam: is it the filter configured under "spam"?',
    ),
    "other": ("see the milters' log lines: crm-milter trace",),
}


NO_RELAYHOST = Relayhost()


def relayed(relay: str, relayhost: Relayhost) -> tuple[str, ...]:
    """Return what to know of a delivery that a relayhost accepted."""
    told = relayhost.told(relay, "accepted it")
    return (f"{told}: look for the rest in its log, or use --until-case",) if told else ()


def waiting_target(words: str, relayhost: Relayhost = NO_RELAYHOST) -> tuple[str, ...]:
    """Return what to do about a delivery that Postfix will try again."""
    later = "Postfix will retry; follow it with crm-milter trace --failing"
    folded = words.lower()
    if relay := relayhost.told(words, "failed"):
        return (relay, later)
    if "host not found" in folded or "name service error" in folded:
        return ("the target's mail server was not found in DNS: is the address complete?", later)
    if "said:" in folded:
        return ("the CRM's server deferred the message (greylisting or a rate limit)", later)
    if "tls" in folded or "certificate" in folded:
        return ("TLS to the CRM's server failed: see smtp_tls_security_level", later)
    return ("the CRM's server does not answer: is outbound port 25 open?", later)


def refused_target(words: str, relayhost: Relayhost = NO_RELAYHOST) -> tuple[str, ...]:
    """Return what to do about a delivery that failed for good."""
    folded = words.lower()
    if relay := relayhost.told(words, "refused it"):
        return (relay, "does it require smtp_sasl_auth_enable, or another sender with --from?")
    if "host not found" in folded or "name service error" in folded or "null mx" in folded:
        advice = (
            "the target's domain does not accept mail: compare replace_with with the address"
            " shown in the CRM"
        )
        return (advice,)
    if "5.7." in folded or "spf" in folded or "dmarc" in folded or "relay" in folded:
        return ("the CRM's server refuses this host or this sender, not the address; see --from",)
    if "loops back to myself" in folded:
        return ("Postfix treats the target's domain as local: crm-milter check --postfix",)
    return ("compare replace_with, character by character, with the address shown in the CRM",)
