"""Spam filters by name: the header fields that each writes, and what every value means.

A preset is one entry. It follows the filter's own source or its maker's documentation, which
stands beside it, and says where the filter stands, which ``check --postfix`` needs to know. A value
that no filter writes says nothing. What a filter says of mail that it passed over at the wish
of its administrator or user (whitelisted, released from quarantine, too large to look at) is
taken at its word; what it calls unsure is no verdict.
"""

import re

from crm_milter.spam.verdict import FieldTest, SpamFilter, Stands, Verdict

_FLAGS = re.IGNORECASE | re.ASCII  # filters write ASCII: a long s is not an s
_WORD = r"(?=[\s,;(]|$)"  # what may follow a word; "yesterday" and "spammy" are other words


def _said(spam: bool, ham: bool) -> Verdict:
    if spam:
        return Verdict.SPAM
    return Verdict.HAM if ham else Verdict.NONE


def _field(name: str, spam: str, ham: str, sample: str) -> FieldTest:
    """Return a field whose value begins with one of these words (regular expressions)."""
    is_spam = re.compile(rf"(?:{spam}){_WORD}", _FLAGS).match
    is_ham = re.compile(rf"(?:{ham}){_WORD}", _FLAGS).match if ham else None
    return FieldTest(
        name.lower(),
        lambda value: _said(bool(is_spam(value)), bool(is_ham and is_ham(value))),
        sample,
    )


# rspamd, src/libserver/milter.c and src/rspamd_proxy.c: "X-Spam: Yes" for the action "add header"
# only. src/plugins/lua/milter_headers.lua: X-Rspamd-Action (also milter.c, where no_action is set)
# is the name of the action; X-Spam-Status and the routine spam-header, which mailcow's
# data/conf/rspamd/local.d/milter_headers.conf turns into "X-Spam-Flag: YES", take every action for
# spam but "no action" and "greylist", custom ones included, and so does this. With nothing but its
# defaults rspamd tells of "rewrite subject" in the subject alone: SPAM_SUBJECT in src/rspamd.h,
# and the one that conf/actions.conf proposes. X-Spamd-Result's True means reject, its False
# anything else: no verdict. src/libserver/cfg_utils.cxx has the names of the actions.
_HARMLESS_ACTIONS = frozenset({"no action", "greylist", "accept"})
_SUBJECT_WORD = re.compile(r"=\?[!->@-~]{1,40}\?q\?([!->@-~]{0,100})", _FLAGS)
_SPAM_SUBJECT = re.compile(r"\*\*\* ?SPAM ?\*\*\*")


def _rspamd_action(value: str) -> Verdict:
    action = value.replace("_", " ").lower()
    return _said(bool(action) and action not in _HARMLESS_ACTIONS, action in _HARMLESS_ACTIONS)


def _rspamd_subject(value: str) -> Verdict:
    # rspamd 3.4 encodes a subject that is not ASCII as a whole (RFC 2047).
    encoded = _SUBJECT_WORD.match(value)
    if encoded:
        value = re.sub("=2a", "*", encoded[1].replace("_", " "), flags=re.IGNORECASE)
        value = value.replace("=20", " ")
    return _said(bool(_SPAM_SUBJECT.match(value)), False)


_RSPAMD = (
    _field("X-Spam", "yes", "no", "Yes"),
    FieldTest("x-rspamd-action", _rspamd_action, "add header"),
    _field("X-Spam-Status", "yes", "no", "Yes, score=8.20"),
    _field("X-Spam-Flag", "yes", "", "YES"),
    FieldTest("subject", _rspamd_subject, "*** SPAM *** Hello"),
)

# Microsoft, "Anti-spam message headers in Microsoft 365" (message-headers-eop-mdo) and "Spam
# confidence level": SCL -1 to 9, spam from 5. SFV: SPM, SKS, SKB and BLK mean marked as spam, NSPM,
# SKA, SKN, SFE and SKQ (released from quarantine: a person has looked) not; SKI leaves it to SCL.
# CAT names the policy that was applied to the message: spam, phishing, impersonation, malware.
_FOREFRONT = re.compile(r"(?:^|[;\s])(SCL|SFV|CAT):\s*([-\w]+)(?=[;\s]|$)", _FLAGS)
_SCL = re.compile("(?:-1|[0-9])", re.ASCII)
_SFV_SPAM = frozenset({"SPM", "SKS", "SKB", "BLK"})
_SFV_HAM = frozenset({"NSPM", "SKA", "SKN", "SFE"})
_CAT_SPAM = frozenset({
    "SPM", "HSPM", "OSPM", "BULK", "PHSH", "HPHSH", "HPHISH", "INTOS", "SPOOF",
    "BIMP", "DIMP", "GIMP", "UIMP", "MALW", "AMP", "SAP", "FTBP",
})  # fmt: skip


def _scl(value: str) -> Verdict:
    if not _SCL.fullmatch(value):
        return Verdict.NONE
    return Verdict.SPAM if int(value) >= 5 else Verdict.HAM


def _forefront(value: str) -> Verdict:
    pairs = [(found[1].upper(), found[2].upper()) for found in _FOREFRONT.finditer(value)]
    if ("SFV", "SKQ") in pairs:
        return Verdict.HAM
    said = {_forefront_pair(key, word) for key, word in pairs}
    return _said(Verdict.SPAM in said, Verdict.HAM in said)


def _forefront_pair(key: str, word: str) -> Verdict:
    if key == "SCL":
        return _scl(word)
    if key == "SFV":
        return _said(word in _SFV_SPAM, word in _SFV_HAM)
    return _said(word in _CAT_SPAM, False)


# DSPAM, src/language.h (LANG_CLASS_*) and src/dspam.c: the field holds the class, or, as printed
# by --classify and --deliver=summary, the user's name and then parameters. What is learned again
# (source=error) has X-DSPAM-Reclassified instead.
_DSPAM_CLASS = re.compile(r'^([a-z]+)$|;\s*class="([a-z]+)"(?=\s*(?:;|$))', _FLAGS)
_DSPAM_SPAM = frozenset({"spam", "virus", "blacklisted", "blocklisted"})
_DSPAM_HAM = frozenset({"innocent", "whitelisted"})


def _dspam(value: str) -> Verdict:
    classes = {(found[1] or found[2]).lower() for found in _DSPAM_CLASS.finditer(value)}
    return _said(bool(classes & _DSPAM_SPAM), bool(classes & _DSPAM_HAM))


# Proofpoint Protection Server: "rule=CLASS policy=default", or "rule=POLICY_CLASS policy=POLICY"
# for the other policies; the classes are those of the scores in the same field. Bulk, suspect and
# low priority are the administrator's to deal with: no verdict. An outbound policy is that of the
# sender's own gateway (mailing lists archive both outbound_notspam and outbound_spam).
_PROOFPOINT = re.compile(r"(?:^|[\s;,])(rule|policy)=([^\s;,]+)", _FLAGS)
_PROOFPOINT_SPAM = frozenset(
    {"spam", "definitespam", "probablespam", "phish", "malware", "impostor", "adult"}
)
_PROOFPOINT_HAM = frozenset({"notspam", "safe"})


def _proofpoint(value: str) -> Verdict:
    pairs = [(found[1].lower(), found[2].lower()) for found in _PROOFPOINT.finditer(value)]
    policy = next((word for key, word in pairs if key == "policy"), "")
    if "outbound" in policy:
        return Verdict.NONE
    classes = {word.removeprefix(f"{policy}_") for key, word in pairs if key == "rule"}
    return _said(bool(classes & _PROOFPOINT_SPAM), bool(classes & _PROOFPOINT_HAM))


_ON_THIS_HOST = Stands.MILTER | Stands.REINJECTION

PRESETS = {
    preset.name: preset
    for preset in (
        # SpamAssassin, rules/10_default_prefs.cf: "add_header spam Flag _YESNOCAPS_" and
        # "add_header all Status _YESNO_, score=..." (2.x: hits=...). spamass-milter.cpp and spampd
        # pass on what it writes; spampd leaves ham unmarked without --tagall.
        SpamFilter(
            "spamassassin",
            (
                _field("X-Spam-Flag", "yes", "", "YES"),
                _field("X-Spam-Status", "yes", "no", "Yes, score=6.5 required=5.0"),
            ),
            marks_ham=True,
            stands=_ON_THIS_HOST,
        ),
        # amavisd-new 2.13, Amavis.pm: YES from tag2_level, and for a blacklisted sender; NO from
        # tag_level, which must be undef for ham to be marked.
        SpamFilter(
            "amavis",
            (_field("X-Spam-Flag", "yes", "no", "YES"),),
            marks_ham=True,
            stands=Stands.REINJECTION,
        ),
        SpamFilter("rspamd", _RSPAMD, marks_ham=False, stands=Stands.MILTER),
        SpamFilter("rspamd-headers", _RSPAMD, marks_ham=True, stands=Stands.MILTER),
        SpamFilter(
            "microsoft",
            (
                FieldTest("x-ms-exchange-organization-scl", _scl, "9"),
                FieldTest("x-forefront-antispam-report", _forefront, "SCL:9;SFV:SPM;CAT:HSPM;"),
            ),
            marks_ham=True,
            stands=Stands.GATEWAY,
        ),
        # Barracuda Email Security Gateway: the flag on spam only, the status on all that it looks
        # at ("No, SCORE=1.09 using global scores of TAG_LEVEL=... tests=..."); it looks at nothing
        # of a sender on its whitelist, and says so in X-ASG-Whitelist.
        SpamFilter(
            "barracuda",
            (
                _field("X-Barracuda-Spam-Flag", "yes", "", "YES"),
                _field("X-Barracuda-Spam-Status", "yes", "no", "Yes, SCORE=9.10 using global"),
            ),
            marks_ham=True,
            stands=Stands.GATEWAY,
        ),
        # bogofilter, src/format.c and bogofilter.cf.example (spamicity_tags, header_format,
        # terse_format): Spam, Ham, Unsure; Yes, No, Unsure; their first letters; +, - and ?.
        SpamFilter(
            "bogofilter",
            (
                _field(
                    "X-Bogosity",
                    r"spam|yes|[sy+]",
                    r"ham|no|[hn-]",
                    "Spam, tests=bogofilter, spamicity=0.999999, version=1.2.5",
                ),
            ),
            marks_ham=True,
            stands=_ON_THIS_HOST,
        ),
        SpamFilter(
            "dspam",
            (
                FieldTest("x-dspam-result", _dspam, "Spam"),
                FieldTest("x-dspam-reclassified", _dspam, "Spam"),
            ),
            marks_ham=True,
            stands=_ON_THIS_HOST,
        ),
        SpamFilter(
            "proofpoint",
            (
                FieldTest(
                    "x-proofpoint-spam-details", _proofpoint, "rule=spam policy=default score=100"
                ),
            ),
            marks_ham=True,
            stands=Stands.GATEWAY,
        ),
        # Google Workspace Admin Help, routing settings, "Add X-Gm-Spam and X-Gm-Phishy headers".
        SpamFilter(
            "gmail",
            (_field("X-Gm-Spam", "1", "0", "1"), _field("X-Gm-Phishy", "1", "", "1")),
            marks_ham=True,
            stands=Stands.GATEWAY,
        ),
    )
}

# MailScanner v5, reports/*/languages.conf: Spam and NotSpam of all sixteen languages, and the
# beginnings of SkippedAsTooBig. Letters that are not ASCII are "?", as the files come in several
# character sets. Message.pm (IsSpam): the word, perhaps "(blacklisted)", "(whitelisted)" or "(no
# watermark or sender address)", then reports after commas. The value is empty for mail that the
# site's whitelist or its "Spam Checks" exempts. With "Multiple Headers = append", the default, a
# forged field stays in front of the true report: every part counts.
_SCANNED_SPAM = ("spam", "polluriel", "sbam/spam")
_SCANNED_HAM = (
    "not spam", "n'est pas un polluriel", "nid sbam/not spam", "no ?s spam", "no es spam",
    "neni spam", "nieje spam", "ikke spam", "non spam", "geen spam", "n?o spam", "ej spam",
    "kein spam",
)  # fmt: skip
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def _part(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?:^|,)\s*(?:{'|'.join(map(re.escape, words))})\s*(?=[,(]|$)", _FLAGS)


_SCANNED_SPAM_PART = _part(_SCANNED_SPAM)
_SCANNED_HAM_PART = _part(_SCANNED_HAM)


def _scanned(value: str) -> Verdict:
    plain = _NOT_ASCII.sub("?", value)
    spam, ham = _SCANNED_SPAM_PART.search(plain), _SCANNED_HAM_PART.search(plain)
    return _said(bool(spam), bool(ham) or not plain)


def mailscanner(organisation: str) -> SpamFilter:
    """Return the filter MailScanner, whose header field carries the site's own name."""
    name = f"x-{organisation}-mailscanner-spamcheck".lower()
    test = FieldTest(name, _scanned, "spam, SpamAssassin (not cached, score=6.5, required 5)")
    return SpamFilter("mailscanner", (test,), marks_ham=True, stands=Stands.GATEWAY)
