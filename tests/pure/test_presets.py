"""Every value that a filter writes, with its verdict: a row each, from its source or documentation.

The projects, files and documents stand beside each preset.
"""

from time import process_time

import pytest

from crm_milter.spam.presets import PRESETS, mailscanner
from crm_milter.spam.verdict import Judge, Stands, Verdict

SPAM, HAM, NONE = Verdict.SPAM, Verdict.HAM, Verdict.NONE

CATEGORIES = (
    *("SPM", "HSPM", "OSPM", "BULK", "PHSH", "HPHSH", "HPHISH", "INTOS", "SPOOF"),
    *("BIMP", "DIMP", "GIMP", "UIMP", "MALW", "AMP", "SAP", "FTBP"),
)
ROWS = {
    ("spamassassin", "X-Spam-Flag"): {
        SPAM: ["YES", "yes", "YES ", "\n\tYES", "YES\r\n ", "YES (sure)"],
        NONE: ["NO", "", "YESTERDAY", "MAYBE", "NOT YES", "YES-MAN", "TRUE", "1"],
    },
    ("spamassassin", "X-Spam-Status"): {
        SPAM: [
            "Yes, score=6.5 required=5.0 tests=A,B autolearn=no version=4.0.1",
            "Yes, score=9.9 required=5.0 tests=[A,\n\tB] shortcircuit=spam",
            "Yes, hits=6.5 required=5.0",
            "Yes, score=99.9 required=5.0 tests=USER_IN_BLOCKLIST shortcircuit=spam",
            "Yes, score=1000.4 required=5.0 tests=GTUBE autolearn=no\n\tautolearn_force=no",
            "Yes,\n\tscore=6.5",
            "YES",
        ],
        HAM: [
            "No, score=-1.0 required=5.0 tests=NONE autolearn=ham",
            "No, score=0.0 shortcircuit=ham",
            "No, hits=0.0 required=5.0",
            "No, score=-99.8 required=5.0 tests=USER_IN_WELCOMELIST,USER_IN_WHITELIST",
            "No, score=4.9 required=5.0 tests=ALL_TRUSTED autolearn=no\n\tautolearn_force=no",
            "No",
        ],
        NONE: ["", "Nope", "Yesno", "score=6.5", "?, score=?", "Not yes", "Unknown, score=0"],
    },
    ("amavis", "X-Spam-Flag"): {
        SPAM: ["YES", "yes", "\r\n YES"],
        HAM: ["NO", "no"],
        NONE: ["", "NONE", "NOT", "MAYBE, NOT YES"],
    },
    ("rspamd-headers", "X-Spam"): {
        SPAM: ["Yes", "yes"],
        HAM: ["No"],
        NONE: ["", "Yesterday", "Spam", "Junk"],
    },
    ("rspamd-headers", "X-Spam-Flag"): {SPAM: ["YES", "yes"], NONE: ["NO", "", "Yesterday"]},
    ("rspamd-headers", "X-Rspamd-Action"): {
        SPAM: [
            "add header",
            "add_header",
            "rewrite subject",
            "rewrite_subject",
            "reject",
            "soft reject",
            "soft_reject",
            "quarantine",
            "discard",
            "Add Header",
            "custom",
            "tag for review",  # an action of the site's own
            "Soft_Reject",
            "  add header  ",
        ],
        HAM: ["no action", "no_action", "greylist", "accept", "No Action"],
        NONE: [""],
    },
    ("rspamd-headers", "X-Spam-Status"): {
        SPAM: ["Yes, score=8.20", "Yes, score=15.00"],
        HAM: ["No, score=-1.20", "No, score=4.10"],
        NONE: [""],
    },
    ("rspamd-headers", "Subject"): {
        SPAM: [
            "*** SPAM *** You won",
            "*** SPAM ***",
            "***SPAM*** You won",
            "*** SPAM *** =?UTF-8?Q?Gewinnspiel_f=C3=BCr_Sie?=",
            "=?UTF-8?Q?***_SPAM_***_f=C3=BCr_Sie?=",
            "=?utf-8?q?=2A=2A=2A=20SPAM=20=2a=2a=2a=20f=C3=BCr?=",
        ],
        NONE: [
            "",
            "Re: *** SPAM *** Your offer",
            "SPAM",
            "** SPAM **",
            "*** Spam *** filters",
            "=?UTF-8?Q?f=C3=BCr_***_SPAM_***?=",
            "=?UTF-8?Q?",
        ],
    },
    ("rspamd-headers", "X-Spamd-Result"): {
        NONE: ["default: True [20.10 / 15.00]", "default: False [4.10 / 15.00]; A(0.00)[]"],
    },
    ("microsoft", "X-MS-Exchange-Organization-SCL"): {
        SPAM: ["5", "6", "7", "8", "9", " 9 "],
        HAM: ["-1", "0", "1", "2", "3", "4"],
        NONE: ["", "10", "-2", "5.0", "x", "05", "5;", "55"],
    },
    ("microsoft", "X-Forefront-Antispam-Report"): {
        SPAM: [
            *(f"CIP:192.0.2.1;SCL:{level};SRV:;SFV:X;" for level in range(5, 10)),
            *(f"SCL:1;SRV:;SFV:{word};CAT:NONE;" for word in ("SPM", "SKS", "SKB", "BLK")),
            *(f"SCL:1;SFV:NSPM;PTR:;CAT:{word};DIR:INB" for word in CATEGORIES),
            "CAT:SPM;SFV:NSPM;SCL:1",
            "scl:9;sfv:spm",
            "CIP:192.0.2.1; CTRY:; LANG:en; SCL:5; SRV:;\r\n IPV:NLI; SFV:SPM; CAT:OSPM;",
            "SCL:1;SCL:9",
            "SCL:6;SFV:SKI",
            "SCL: 9;",
            "SFV:SKA;CAT:PHSH",
            "CIP:192.0.2.1;SCL:9;SRV:;SFV:SKS;CAT:NONE;DIR:INB;",
            "CIP:192.0.2.1;SCL:6;SFV:SKB;CAT:SPM;DIR:INB",
            "SCL:5;SFV:SKI;CAT:INTOS;SFTY:9.25",
        ],
        HAM: [
            *(f"CIP:192.0.2.1;SCL:{level};SRV:;SFV:X;" for level in range(-1, 5)),
            *(f"CIP:192.0.2.1;SFV:{word};" for word in ("NSPM", "SKA", "SKN", "SFE", "SKQ")),
            "SCL:1;SFV:SKI;CAT:NONE",
            "CIP:255.255.255.255;CTRY:;LANG:en;SCL:-1;SRV:;IPV:NLI;SFV:SKI;H:x;PTR:;CAT:NONE;",
            "CIP:192.0.2.1;CTRY:US;LANG:en;SCL:-1;SRV:;IPV:CAL;SFV:SKN;H:x;PTR:;CAT:NONE;DIR:INB;",
            "CIP:192.0.2.1;SCL:-1;SFV:SFE;CAT:NONE;SFTY:;",
            "CIP:192.0.2.1;IPV:NLI;SFV:SKQ;SCL:9;CAT:HPHISH",
            "SCL:1;SRV:BULK;SFV:NSPM;CAT:NONE;BCL:7",
            "SCL:-1;SFV:SKQ;CAT:SPM",  # released from quarantine
            "SCL:1;\r\n\tSFV:NSPM",
        ],
        NONE: [
            "",
            "CIP:192.0.2.1;CTRY:DE;IPV:NLI",
            "SCL:;SFV:;CAT:;",
            "SFV:SKI",
            "CAT:NONE",
            "XSCL:9;XSFV:SPM;XCAT:SPM",
            "SCL:9x;SFV:SPMX;CAT:SPMS",
            "SCL:12",
            "H:SFV-SPM.example",
        ],
    },
    ("barracuda", "X-Barracuda-Spam-Flag"): {SPAM: ["YES"], NONE: ["", "NO", "Yesterday"]},
    ("barracuda", "X-Barracuda-Spam-Status"): {
        SPAM: ["Yes, SCORE=9.10 using global scores of TAG_LEVEL=3.5", "Yes,\r\n SCORE=10.11"],
        HAM: ["No, SCORE=1.09 using global scores of TAG_LEVEL=1000.0 tests=NO_REAL_NAME", "No"],
        NONE: ["", "None", "SCORE=9"],
    },
    ("bogofilter", "X-Bogosity"): {
        SPAM: [
            "Spam, tests=bogofilter, spamicity=0.999999, version=1.2.5",
            "Yes, tests=bogofilter, spamicity=0.999999, version=0.17.5",
            "Yes, tests=bogofilter",
            "Y",
            "S",
            "Spam",
            "Yes",
            "S 0.999999",
            "Y 0.999999",
            "+ 0.99",
            "+",
        ],
        HAM: [
            "Ham, tests=bogofilter, spamicity=0.000000, version=1.2.5",
            "No, tests=bogofilter, spamicity=0.000000",
            "Ham, tests=bogofilter, spamicity=0.520000, version=0.93.0",
            "N",
            "H",
            "H 0.000001",
            "N 0.000001",
            "-, tests=bogofilter",
        ],
        NONE: [
            "Unsure, tests=bogofilter, spamicity=0.500000",
            "U 0.5",
            "? 0.5",
            "",
            "Spammy",
            "Spamicity 0.99",
            "Hamlet",
            "0.9999999999999999",
            "+1",
        ],
    },
    ("dspam", "X-DSPAM-Result"): {
        SPAM: [
            "Spam",
            "Virus",
            "Blacklisted",
            "Blocklisted",
            "SPAM",
            'joe; result="Spam"; class="Spam"; probability=1.0000; confidence=0.99',
            'joe; result="Spam"; class="Virus"; signature=N/A',
            'joe; result="Blocklisted"; class="Blocklisted"; probability=1.0000',
        ],
        HAM: [
            "Innocent",
            "Whitelisted",
            'spam; result="Innocent"; class="Innocent"; probability=0.0000',
            'joe; result="Innocent"; class="Whitelisted"; confidence=0.99',
            "whitelisted",
            'joe@a.example; result="Whitelisted"; class="Whitelisted"; probability=0.0023',
        ],
        NONE: ["", "Bogus", "Spammer", "Spam or not", 'joe; result="Spam"', "Unknown", "Error"],
    },
    ("dspam", "X-DSPAM-Reclassified"): {SPAM: ["Spam"], HAM: ["Innocent"], NONE: [""]},
    ("proofpoint", "X-Proofpoint-Spam-Details"): {
        SPAM: [
            "rule=spam policy=default score=100 spamscore=100 classifier=spam adjust=0",
            "rule=inbound_policy_spam policy=inbound_policy score=99",
            "rule=inbound_spam policy=inbound score=99",
            "rule=fb_default_spam policy=fb_default score=100 mlxscore=100",
            "rule=fb_default_phish policy=fb_default score=100",
            "rule=quarantine_spam policy=quarantine",
            "policy=inbound score=99 rule=inbound_spam",
            "rule=inbound_spam\r\n policy=inbound\r\n score=99",
            "RULE=SPAM POLICY=DEFAULT",
            "rule=notspam rule=spam policy=default",
            *(
                f"rule={word} policy=default score=90"
                for word in ("definitespam", "probablespam", "phish", "malware", "impostor")
            ),
            "rule=adult policy=default",
            "rule=inbound_phish policy=inbound",
            "rule=spam",
        ],
        HAM: [
            "rule=notspam policy=default score=0 mlxscore=0 classifier=spam adjust=0 reason=mlx",
            "rule=inbound_notspam policy=inbound score=0 clxscore=1011 bulkscore=10",
            "rule=inbound_policy_notspam policy=inbound_policy score=30",
            "rule=fb_default_notspam policy=fb_default score=0 mlxscore=0 spamscore=0",
            "rule=fb_default_notspam policy=fb_default score=0 suspectscore=8\n phishscore=0",
            "rule=quarantine_notspam policy=quarantine",
            "rule=spam_notspam policy=spam",
            "rule=safe policy=default",
            "score=0 policy=default rule=notspam",
        ],
        NONE: [
            "",
            "rule=outbound_notspam policy=outbound score=0",
            "rule=fb_outbound_notspam policy=fb_outbound score=0",
            "rule=fb_default_bulk policy=fb_default score=0",
            "rule=fb_default_notspam policy=default score=0",  # of another policy
            "rule=outbound_spam policy=outbound score=99",
            "rule=outbound_check_notspam policy=outbound_check score=0",
            "rule=spam_outbound_notspam policy=spam_outbound score=0",
            "rule=bulk policy=default",
            "rule=inbound_spam_bulk policy=inbound_spam",
            "rule=suspect policy=default",
            "rule=lowpriority policy=default",
            "rule=other_spam policy=inbound",
            "policy=default score=100 spamscore=100 classifier=spam",
            "norule=spam policy=default",
            "rule=spammer policy=default",
            "rule=inbound_spam policy=default policy=inbound",
        ],
    },
    ("gmail", "X-Gm-Spam"): {SPAM: ["1"], HAM: ["0"], NONE: ["", "10", "01", "1.0", "-1", "yes"]},
    ("gmail", "X-Gm-Phishy"): {SPAM: ["1"], NONE: ["0", "", "11"]},
    ("mailscanner", "X-Acme-MailScanner-SpamCheck"): {
        SPAM: [
            "spam, SpamAssassin (not cached, score=6.5, required 5, BAYES_99 3.50)",
            "spam, SBL+XBL, spamcop.net,\n\tSpamAssassin (score=6.5, required 5)",
            "spam (blacklisted)",
            "spam(no watermark or sender address)",
            "spam (no watermark or sender address), SpamAssassin (score=9)",
            "spam, ",
            "Spam",
            "polluriel, SpamAssassin (not cached, score=6.5, requis 5)",
            "polluriel (inscrit sur la liste noire)",
            "spam, SpamAssassin (nicht zwischen gespeichert, Wertung=9.1, benoetigt 5)",
            "spam (lista nera)",
            "spam (zwarte lijst), SpamAssassin (score=9)",
            "sbam/spam (blacklisted)",
            "sbam/spam, SpamAssassin (cached, sgor/score=6.5)",
            # A sender's own field, with the true report appended.
            "not spam, spam, SpamAssassin (not cached, score=6.5, required 5)",
            "not spam, SpamAssassin (score=0, required 5), spam (blacklisted)",
            "n'est pas un polluriel,\n\tpolluriel, SpamAssassin (score=6.5)",
        ],
        HAM: [
            "not spam, SpamAssassin (not cached, score=-2.599, required 5, autolearn=not spam)",
            "not spam (whitelisted), SpamAssassin (score=-2.599,\n\trequired 5, autolearn=spam)",
            "not spam",
            "Not spam, ",
            "not spam (too large)",
            "not spam, SpamAssassin (timed out)",
            "not spam (no watermark or sender address)",
            "n'est pas un polluriel, SpamAssassin (not cached, score=0.2, requis 5)",
            "n'est pas un polluriel (inscrit sur la liste blanche)",
            "nid sbam/not spam, SpamAssassin (cached)",
            "no és spam, SpamAssassin (no en memòria cau)",  # Catalan
            "no \udce9s spam",  # the same, in Latin-1
            "no és spam (massa llarg)",
            "no és spam (en llista blanca), SpamAssassin (no en memòria cau, puntuació=0)",
            "n'est pas un polluriel (trop grand)",
            "nid sbam/not spam (too large)",
            "kein spam, SpamAssassin (nicht zwischen gespeichert, Wertung=-1, benoetigt 5)",
            "geen spam, SpamAssassin (niet cached, score=-1)",
            "ikke spam, SpamAssassin (ikke cached, score=1.2, kraevet 5)",
            "neni spam",  # Czech
            "kein Spam (zu groß)",  # German
            "ikke spam (hvid listet)",  # Danish
            "no es spam (demasiado grande)",  # Spanish
            "non spam, SpamAssassin (punteggio=1, necessario 5)",  # Italian
            "geen spam (whitelisted)",  # Dutch
            "não spam (está em uma lista branca)",  # Portuguese
            "n\udce3o spam",
            "ej spam (godkänd)",  # Swedish
            "nieje spam",  # Slovak
            "",  # exempted by the site's whitelist or its "Spam Checks"
            " \r\n ",
        ],
        NONE: [
            "spammy",
            "spam checks disabled",
            "no spam",
            "Message had no headers",
            "maybe spam",
            "SpamAssassin (timed out)",
            "\u017fpam",
        ],
    },
}


def _filter(preset):
    return mailscanner("Acme") if preset == "mailscanner" else PRESETS[preset]


@pytest.mark.parametrize(
    ("preset", "name", "value", "expected"),
    [
        (preset, name, value, expected)
        for (preset, name), values in ROWS.items()
        for expected, each in values.items()
        for value in each
    ],
)
def test_value(preset, name, value, expected):
    judge = Judge((_filter(preset),))
    assert judge([(name.lower(), value)]).verdict is expected
    assert judge([(name.lower(), f" {value}\r\n")]).verdict is expected


def test_every_field_of_every_preset_has_rows():
    read = {(each.name, test.name) for each in PRESETS.values() for test in each.tests}
    read |= {("mailscanner", test.name) for test in mailscanner("Acme").tests}
    read = {("rspamd-headers" if name == "rspamd" else name, field) for name, field in read}
    assert read - {(preset, name.lower()) for preset, name in ROWS} == set()


@pytest.mark.parametrize("preset", [*PRESETS, "mailscanner"])
def test_the_sample_of_each_field_is_spam(preset):
    for test in _filter(preset).tests:
        assert test.says(test.sample) is SPAM
        assert Judge((_filter(preset),))([(test.name, test.sample)]).verdict is SPAM


def test_rspamd_takes_silence_for_ham_unless_it_marks_ham():
    assert PRESETS["rspamd"].tests == PRESETS["rspamd-headers"].tests
    for value in ("no action", "greylist"):
        assert Judge((PRESETS["rspamd"],))([("x-rspamd-action", value)]).verdict is HAM
    assert Judge((PRESETS["rspamd"],))([]).verdict is HAM
    assert Judge((PRESETS["rspamd-headers"],))([]).verdict is NONE


@pytest.mark.parametrize(
    ("stands", "names"),
    [
        (Stands.MILTER, {"spamassassin", "rspamd", "rspamd-headers", "bogofilter", "dspam"}),
        (Stands.REINJECTION, {"spamassassin", "amavis", "bogofilter", "dspam"}),
        (Stands.GATEWAY, {"microsoft", "barracuda", "proofpoint", "gmail", "mailscanner"}),
    ],
)
def test_where_the_filters_stand(stands, names):
    known = [*PRESETS.values(), mailscanner("Acme")]
    assert {each.name for each in known if stands in each.stands} == names


# A stranger writes these fields as well: no value may cost more than time linear in its length.
LONG = 60_000
SLOW = {
    "x-spam-flag": "yes" * LONG,
    "subject": "=?UTF-8?Q?" + "*_" * LONG,
    "x-rspamd-action": "_" * LONG,
    "x-forefront-antispam-report": "SCL: " * LONG,
    "x-dspam-result": ';class="' * LONG,
    "x-proofpoint-spam-details": "policy=a " * 4000 + "rule=a_b " * 4000,
    "x-acme-mailscanner-spamcheck": ", not" * LONG,
}


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("blanks", [False, True])
def test_no_value_is_slow(name, blanks):
    judge = Judge((*PRESETS.values(), mailscanner("Acme")))
    value = "a" + " " * LONG + "," + " " * LONG if blanks else SLOW[name]
    began = process_time()
    judge([(name, value)])
    assert process_time() - began < 1
