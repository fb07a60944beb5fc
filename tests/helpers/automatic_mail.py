"""Automatic mail, rebuilt from what the programs that send it write; and mail of people.

Each row names the program and has the fields that matter. Where they are documented: RFC 3834,
3464, 2919, 2076; the sources of Postfix (bounce_notify_util.c), sendmail (savemail.c), exim
(deliver.c, transports/autoreply.c), qmail (qmail-send.c), Courier (courier/module.dsn), Dovecot
Pigeonhole (ext-vacation.c), Cyrus (lmtp_sieve.c), vacation(1), chasquid (dsn.go), Mailman
(CookHeaders.py), ezmlm, Sympa (Message.pm), Majordomo (resend), phpList (sendemaillib.php);
Microsoft's and Google's help pages on automatic replies and delivery reports;
arp242.net/autoreply.html for the others.
"""

from crm_milter.rules.rule import AutomaticClass

REPLY, BOUNCE, BULK, LIST = AutomaticClass
A, P, XP, C, F, L = ("auto-submitted", "precedence", "x-precedence", "content-type",
                     "x-failed-recipients", "list-id")  # fmt: skip
REPORT = "multipart/report; report-type=delivery-status"

REPLIES = {
    "Dovecot Pigeonhole": ((A, "auto-replied (vacation)"), (P, "bulk")),
    "Cyrus timsieved": ((A, "auto-replied (vacation)"),),
    "exim autoreply": ((A, "auto-replied"),),
    "vacation(1), Debian": ((P, "bulk"), (A, "auto-replied")),
    "Exchange, out of office": ((A, "auto-generated"), ("x-auto-response-suppress", "All")),
    "Exchange, inbox rule": ((A, "auto-generated"), ("x-ms-exchange-inbox-rules-loop", "a@b")),
    "Gmail vacation": ((P, "bulk"), ("x-autoreply", "yes"), (A, "auto-replied")),
    "Zimbra": ((A, "auto-replied (zimbra; vacation)"), (P, "bulk")),
    "cPanel BoxTrapper": ((P, "auto_reply"), (XP, "auto_reply"), ("x-autorespond", "auto_reply")),
    "cPanel autoresponder": (("x-autorespond", "Re: invoice 4711"), (P, "auto_reply")),
    "Domain Technologie Control": (("x-autoreply-from", "a@b.example"), ("x-mail-autoreply", "1")),
    "an autoresponder of old": (("x-autoreply", "yes"),),
    "Mail::Vacation of CPAN": (("x-mail-autoreply", "Mail::Karmasphere/1.2 (mail.b.example)"),),
    "Jira Service Management": ((A, "auto-generated"), (P, "bulk")),
    "Request Tracker": ((A, "auto-replied"), (P, "bulk"), ("x-rt-loop-prevention", "b.example")),
    "OTRS": ((A, "auto-replied (rejected)"), (P, "bulk"), ("x-otrs-loop", "yes")),
    "cron, Debian": ((A, "auto-generated"),),
    "MDaemon": ((A, "auto-replied; owner-email=\"joe@b.example\""),),
    "procmail recipe": (("x-precedence", " Auto_Reply"),),
    "Nagios": ((A, "\n\tauto-notified (monitoring\n (host)); owner-token=x"),),
}  # fmt: skip
BOUNCES = {
    "Postfix": ((A, "auto-replied"), (C, f'{REPORT};\n\tboundary="4bXq1Z.1/mail.b.example"')),
    "Postfix, delay": ((C, f'{REPORT}; boundary="x"'), (A, "auto-replied")),
    "sendmail": ((C, f'{REPORT};\n\tboundary="3Q1.17/b"'), (A, "auto-generated (failure)")),
    "exim 4.8x": ((F, "joe@b.example"), (A, "auto-replied")),
    "exim 4.9x": ((F, "joe@b.example"), (C, f"{REPORT}; boundary=1764-eximdsn-1")),
    "Gmail": ((C, 'multipart/report; boundary="0"; report-type=delivery-status'), (F, "j@b.ex")),
    "Google Groups": ((F, "list@b.example"), (A, "auto-replied")),
    "Exchange Online": ((C, 'multipart/report; report-type=delivery-status;\n\tboundary="9B09"'),),
    "Exchange 2010": ((C, 'multipart/report;\r\n\treport-type=delivery-status; boundary="x"'),),
    "Courier": ((C, 'multipart/report; report-type=delivery-status;\n    boundary="=_c"'),),
    "chasquid": ((F, "to@b.example, too@b.example,"), (C, f"{REPORT};\n    boundary=\"1\"")),
    "OpenSMTPD": ((C, 'multipart/mixed;boundary="1/b"'), ("", "")),
    "qmail": (("", ""),),
    "Amazon SES": ((C, 'multipart/report; \r\n\tboundary="--"; report-type="delivery-status"'),),
    "Lotus Domino": ((C, 'MULTIPART/REPORT; REPORT-TYPE=DELIVERY-STATUS; BOUNDARY="==IFJ"'),),
    "Mimecast": ((C, 'Multipart/Report; report-type=Delivery-Status; boundary="x"'),),
    "Zimbra": ((C, 'multipart/report (delivery failed); report-type = delivery-status'),),
    "IIS SMTP": ((C, 'multipart/report; report-type=delivery-status;'),),
    "James": ((C, "multipart/report; report-type*=us-ascii''delivery-status; boundary=b"),),
    "an SMTPUTF8 report": ((C, "multipart/report; report-type=global-delivery-status"),),
}  # fmt: skip
MASS = {
    "Majordomo": ((P, "bulk"),),
    "phpList": ((P, "bulk"), ("list-unsubscribe", "<http://b.example/?p=unsubscribe>")),
    "CiviCRM": ((P, "bulk"), ("x-civimail-bounce", "b.1.2.3@b.example")),
    "Mailchimp of old": ((P, "bulk"), ("x-mailer", "MailChimp Mailer - **CID1**")),
    "Mailman 2.1, Red Hat": ((P, "junk"), ("x-mailman-version", "2.1.12")),
    "Mailman 2.0": ((P, "bulk"), ("x-beenthere", "a@b.example")),
    "vacation(1), BSD": ((P, "bulk"),),
    "vacation(1), sendmail": ((P, "junk"),),
    "Bugzilla": ((P, "bulk"), ("x-bugzilla-type", "new")),
    "Trac": ((P, "bulk"), ("x-trac-project", "b")),
    "MediaWiki": ((P, "bulk"), ("x-mailer", "MediaWiki mailer")),
    "Drupal Simplenews": ((P, "bulk"), ("x-drupal", "1")),
    "Jenkins": ((P, "bulk"), ("x-jenkins-job", "build")),
    "GNATS": ((P, "BULK"),),
    "Listserv": ((P, " bulk "),),
    "Lyris": ((P, "bulk (weekly)"),),
    "a fetchmail user's filter": ((P, "(low)\n bulk"),),
    "two fields": ((P, "first-class"), (P, "bulk")),
    "Discourse": ((P, "bulk"), ("x-discourse-topic-id", "1")),
    "Zendesk": ((P, "bulk"), ("x-zendesk-from-account-id", "1")),
}
LISTS = {
    "Mailman 2.1": ((P, "list"), (L, "Users <users.lists.b.example>")),
    "Mailman 3": ((P, "list"), (L, "<users.lists.b.example>")),
    "Sympa": ((P, "list"), (L, "<users.lists.b.example>"), ("x-loop", "users@lists.b.example")),
    "ezmlm-idx": ((P, "bulk"), (L, "<users.b.example>")),
    "mlmmj": ((P, "list"),),
    "Google Groups": ((P, "list"), (L, "<users.googlegroups.com>"), ("x-google-group-id", "1")),
    "GitHub": ((P, "list"), (L, "org/repo <repo.org.github.com>")),
    "GitLab": ((L, "group/project <1.project.group.gitlab.example>"),),
    "LISTSERV 16": ((P, "list"), (L, '"A list" <USERS.LISTS.B.EXAMPLE>')),
    "Groups.io": ((P, "Bulk"), (L, "<main.b.groups.io>")),
    "Yahoo Groups": ((P, "bulk"), (L, "<users.yahoogroups.example>")),
    "Discourse": ((L, '"B | Support" <support.forum.b.example>'),),
    "Majordomo 2": ((P, "list"),),
    "Smartlist": ((P, "list"), ("x-mailing-list", "<users@b.example> archive/1")),
    "Debian": ((L, "<debian-user.lists.debian.example>"), (P, "list")),
    "SourceForge": ((L, "=?utf-8?q?Users?=\n <users.lists.b.example>"),),
    "vger.kernel.org": ((P, "bulk"), (L, "<linux.vger.kernel.example>")),
    "Phabricator": ((P, "bulk"), (L, "<phabricator.b.example>")),
    "Simplelists": ((L, "users.simplelists.example"),),
    "a list in a language": ((L, "\u00dcbung <uebung.b.example>"),),
}
PEOPLE = (
    (A, "no"), (A, "No (by hand); x=y"), (A, ""), (P, "first-class"), (P, "normal"), (P, ""),
    (P, "special-delivery"), (P, "bulky"), (P, "(bulk)"), (XP, "bulk"), (XP, "list"),
    (C, "multipart/report; report-type=disposition-notification"),  # a person has read it
    (C, "multipart/mixed; report-type=delivery-status"), (C, 'text/plain; name="delivery-status"'),
    (C, 'multipart/report; x="report-type=delivery-status"'), (C, "multipart/report"),
    (C, "multipart/report (report-type=delivery-status)"), (C, ""), (F, ""), (F, "(nobody)"),
    (L, ""), (L, " \n "), ("x-autoreply", "no"), ("x-auto-response-suppress", "All"),
    (C, "message/rfc822"),
    ("list-unsubscribe", "<mailto:a@b.example>"), ("subject", "Out of office: Auto: Undelivered"),
)  # fmt: skip
