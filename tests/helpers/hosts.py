"""Kinds of mail host: what main.cf and master.cf say there, and what attach must do with them."""

from dataclasses import dataclass, field

SMTPD = "127.0.0.1:{smtp} inet n - n - - smtpd\n127.0.0.1:{submission} inet n - n - - smtpd\n"
BACK = """127.0.0.1:{back} inet n - n - - smtpd
  -o content_filter=
  -o smtpd_proxy_filter=
  -o smtpd_milters=
  -o mynetworks=127.0.0.0/8
"""
POSTSCREEN = """127.0.0.1:{smtp} inet n - n - 1 postscreen
smtpd pass - - n - - smtpd
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
"""
SUBMISSION = "127.0.0.1:{submission} inet n - n - - smtpd\n  -o smtpd_upstream_proxy_protocol=\n"
PIPE = "spamfilter unix - n n - - pipe\n  flags=Rq user=nobody argv=/bin/cat -- ${{sender}}\n"
DKIM = "inet:127.0.0.1:9"


@dataclass(frozen=True)
class Host:
    """One kind. ``by`` is the service where mail for help@ comes to the milter, "" if none can.

    ``unproved`` is a part of what attach says where it cannot prove its work and is told to keep
    it; ``refused`` of what it says where it refuses; ``expected`` stands in master.cf or main.cf
    while attached.
    """

    main: dict[str, str] = field(default_factory=dict)
    master: str = SMTPD
    by: str = "smtp"
    spam: str = "rspamd"
    unproved: str = ""
    refused: str = ""
    expected: tuple[str, ...] = ()


HOSTS = {
    "plain": Host(),
    "postscreen alone": Host({}, POSTSCREEN),
    "postscreen and submission": Host({}, POSTSCREEN + SUBMISSION, by="submission"),
    "postscreen behind HAProxy": Host(
        {"postscreen_upstream_proxy_protocol": "haproxy"}, POSTSCREEN + SUBMISSION, by="submission"
    ),
    "postscreen behind HAProxy, alone": Host(
        {"postscreen_upstream_proxy_protocol": "haproxy"}, POSTSCREEN, by=""
    ),
    "smtpd behind HAProxy": Host(
        {"smtpd_upstream_proxy_protocol": "haproxy"},
        "127.0.0.1:{smtp} inet n - n - - smtpd\n",
        by="",
    ),
    "HAProxy for port 25 alone": Host(
        {},
        "127.0.0.1:{smtp} inet n - n - - smtpd\n  -o smtpd_upstream_proxy_protocol=haproxy\n"
        + SUBMISSION,
        by="submission",
    ),
    "a client list without localhost": Host(
        {"smtpd_client_restrictions": "reject", "smtpd_delay_reject": "no"},
        by="",
        unproved="Client host rejected: Access denied to this host",
    ),
    "a client list of postscreen's": Host(
        {
            "postscreen_access_list": "static:reject",
            "postscreen_blacklist_action": "drop",
        },
        POSTSCREEN,
        by="",
        unproved="not proved",
    ),
    "deep tests of postscreen's": Host(
        {"postscreen_access_list": "", "postscreen_pipelining_enable": "yes"}
        | {"postscreen_greet_wait": "1s"},
        POSTSCREEN,
        by="",
        unproved="answered by itself",
    ),
    "one smtpd that milters of its own spare": Host(
        {"smtpd_milter_maps": "inline:{{127.0.0.1=DISABLE}}"}, by="", unproved="smtpd_milter_maps"
    ),
    "mailcow": Host(
        {
            "smtpd_milters": DKIM,
            "non_smtpd_milters": DKIM,
            "milter_default_action": "accept",
            "milter_mail_macros": "i {mail_addr} {client_addr} {client_name} {auth_authen}",
        },
        POSTSCREEN + SUBMISSION + "127.0.0.1:{back} inet n - n - - smtpd\n  -o smtpd_milters=\n",
        by="submission",
        expected=("-o smtpd_milters=\n",),
    ),
    "Mail-in-a-Box": Host(
        {
            "smtpd_milters": f"{DKIM} {DKIM}",
            "non_smtpd_milters": "$smtpd_milters",
            "milter_default_action": "accept",
            "virtual_transport": "lmtp:[127.0.0.1]:9",
        },
        "127.0.0.1:{smtp} inet n - n - - smtpd\n"
        "127.0.0.1:{submission} inet n - n - - smtpd\n"
        f"  -o smtpd_milters={DKIM}\n  -o cleanup_service_name=authclean\n"
        "authclean unix n - n - 0 cleanup\n  -o nested_header_checks=\n",
    ),
    "iRedMail": Host(
        {"enable_original_recipient": "no", "content_filter": "smtp-amavis:[127.0.0.1]:10024"},
        SMTPD + BACK + "smtp-amavis unix - - n - 2 smtp\n",
        by="back",
        spam="amavis",
        expected=("enable_original_recipient = yes",),
    ),
    "ISPConfig": Host(
        {
            "enable_original_recipient": "no",
            "content_filter": "amavis:[127.0.0.1]:10024",
            "receive_override_options": "no_address_mappings",
        },
        SMTPD + BACK + "amavis unix - - n - 2 smtp\n",
        by="back",
        spam="amavis",
    ),
    "amavis": Host(
        {"content_filter": "amavis:[127.0.0.1]:10024"},
        "127.0.0.1:{smtp} inet n - n - - smtpd\n"
        "127.0.0.1:{submission} inet n - n - - smtpd\n"
        "  -o content_filter=amavis:[127.0.0.1]:10026\n" + BACK + "amavis unix - - n - 2 smtp\n",
        by="back",
        spam="amavis",
        expected=("no_address_mappings",),
    ),
    "a before-queue proxy": Host(
        {"smtpd_proxy_filter": "127.0.0.1:10024"}, SMTPD + BACK, by="back"
    ),
    "only a pipe filter": Host(
        {},
        "127.0.0.1:{smtp} inet n - n - - smtpd\n  -o content_filter=spamfilter:dummy\n" + PIPE,
        by="sendmail",
        spam="spamassassin",
        unproved="no smtpd has crm-milter",
    ),
    "Dovecot": Host(
        {"virtual_transport": "lmtp:unix:private/dovecot-lmtp", "smtpd_sasl_type": "dovecot"},
        SMTPD,
    ),
    "blocks of Ansible": Host(
        {"milter_default_action": "accept"},
        "# BEGIN ANSIBLE MANAGED BLOCK smtp\n"
        "127.0.0.1:{smtp}      inet  n       -       n       -       -       smtpd\n"
        f"    -o smtpd_milters={DKIM}\n"
        "    -o {{ syslog_name = postfix/mx }}\n"
        "# END ANSIBLE MANAGED BLOCK smtp\n"
        "# BEGIN ANSIBLE MANAGED BLOCK submission\n" + SUBMISSION + "# END ANSIBLE MANAGED BLOCK\n",
        expected=("    -o { syslog_name = postfix/mx }\n# END ANSIBLE MANAGED BLOCK smtp\n",),
    ),
    "$name for both lists": Host(
        {"dkim": DKIM, "both": "$dkim", "smtpd_milters": "$both", "non_smtpd_milters": "$both"}
        | {"milter_default_action": "accept"},
    ),
    "smtpd has the milters of sendmail": Host(
        {"non_smtpd_milters": DKIM, "milter_default_action": "accept"},
        "127.0.0.1:{smtp} inet n - n - - smtpd\n  -o smtpd_milters=$non_smtpd_milters\n"
        "127.0.0.1:{submission} inet n - n - - smtpd\n  -o smtpd_milters=${{non_smtpd_milters}}\n",
    ),
    "smtpd has the milters of sendmail, in main.cf": Host(
        {"smtpd_milters": "$non_smtpd_milters", "non_smtpd_milters": "", "dkim": DKIM}
    ),
    "one service without milters": Host(
        {},
        SMTPD
        + "127.0.0.1:{back} inet n - n - - smtpd\n  -o { smtpd_milters = }\n".replace(
            "{ s", "{{ s"
        ).replace("= }", "= }}"),
        expected=("-o { smtpd_milters = }\n",),
    ),
    "several options on one line": Host(
        {},
        f"127.0.0.1:{{smtp}} inet n - n - - smtpd -o smtpd_milters={DKIM}"
        " -o milter_default_action=accept\n",
        expected=("inet n - n - - smtpd -o smtpd_milters=inet:127.0.0.1:9,{unix:",),
    ),
    "an smtpd on a Unix socket": Host(
        {}, SMTPD + "filtered unix - - n - - smtpd\n  -o smtpd_client_restrictions=\n"
    ),
    "a chroot without the socket": Host(
        {}, "127.0.0.1:{smtp} inet n - y - - smtpd\n", refused="runs in the chroot"
    ),
    "a cleanup in a chroot without the socket": Host(
        {}, SMTPD + "cleanup unix n - y - 0 cleanup\n", refused="runs in the chroot"
    ),
}
