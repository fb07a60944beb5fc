"""The spam filter's verdict, preset by preset, with the headers as the filters write them."""

from time import process_time

import pytest

from crm_milter.spam.own_filter import by_score, by_value
from crm_milter.spam.presets import PRESETS, mailscanner
from crm_milter.spam.verdict import Judge, Stands, Verdict, field_names

SPAM, HAM, NONE, CONFLICTING = Verdict.SPAM, Verdict.HAM, Verdict.NONE, Verdict.CONFLICTING


def verdict(filters, *fields):
    pairs = [tuple(field.split(": ", 1)) for field in fields]
    return Judge(tuple(filters))([(name.lower(), value) for name, value in pairs]).verdict


@pytest.mark.parametrize(
    ("preset", "fields", "expected"),
    [
        ("spamassassin", ["X-Spam-Flag: YES"], SPAM),
        ("spamassassin", ["X-Spam-Status: Yes, score=6.5 required=5.0 tests=A,B"], SPAM),
        ("spamassassin", ["X-Spam-Status: No, score=1.0 required=5.0"], HAM),
        ("spamassassin", [], NONE),
        ("spamassassin", ["X-Spam-Flag: NO"], NONE),  # it never writes that
        ("spamassassin", ["X-Spam-Flag: NO", "X-Spam-Flag: YES"], SPAM),
        ("spamassassin", ["X-Spam-Status: No", "X-Spam-Flag: YES"], CONFLICTING),
        ("spamassassin", ["X-Spam-Status: Yes,\n\tscore=9\n\ttests=[A,\n\t B]"], SPAM),
        ("spamassassin", ["X-Spam-Flag: \n\tYES"], SPAM),
        ("spamassassin", ["X-Bogosity: Spam, tests=bogofilter"], NONE),
        ("amavis", ["X-Spam-Flag: YES"], SPAM),
        ("amavis", ["X-Spam-Flag: NO"], HAM),
        ("amavis", ["X-Spam-Flag: NO", "X-Spam-Flag: YES"], CONFLICTING),
        ("amavis", ["X-Spam-Flag: YES", "X-Spam-Flag: NO"], CONFLICTING),
        ("amavis", [], NONE),
        ("rspamd", ["X-Spam: Yes"], SPAM),
        ("rspamd", ["X-Rspamd-Action: add header"], SPAM),
        ("rspamd", ["X-Rspamd-Action: rewrite subject"], SPAM),
        ("rspamd", ["X-Rspamd-Action: reject"], SPAM),
        ("rspamd", ["X-Spam-Status: Yes, score=8.20"], SPAM),
        ("rspamd", ["X-Spamd-Result: default: True [20.10 / 15.00]"], HAM),
        ("rspamd", [], HAM),
        ("rspamd-headers", ["X-Rspamd-Action: no action"], HAM),
        ("rspamd-headers", ["X-Spamd-Result: default: False [4.10 / 15.00]"], NONE),
        ("rspamd-headers", [], NONE),
        ("microsoft", ["X-MS-Exchange-Organization-SCL: 5"], SPAM),
        ("microsoft", ["X-MS-Exchange-Organization-SCL: 4"], HAM),
        ("microsoft", ["X-MS-Exchange-Organization-SCL: -1"], HAM),
        ("microsoft", ["X-Forefront-Antispam-Report: CIP:1.2.3.4;SCL:1;SFV:NSPM;"], HAM),
        ("microsoft", ["X-Forefront-Antispam-Report: CIP:1.2.3.4;SCL:9;SFV:X;"], SPAM),
        ("microsoft", ["X-Forefront-Antispam-Report: CIP:1.2.3.4;SCL:1;\n CAT:HPHSH;"], SPAM),
        ("microsoft", ["X-Forefront-Antispam-Report: SFV:SPM;SCL:1"], SPAM),
        ("barracuda", ["X-Barracuda-Spam-Flag: YES"], SPAM),
        ("barracuda", ["X-Barracuda-Spam-Status: No, SCORE=1.09 using global"], HAM),
        ("barracuda", ["X-Barracuda-Spam-Status: Yes, SCORE=9"], SPAM),
        ("bogofilter", ["X-Bogosity: Spam, tests=bogofilter, spamicity=0.99"], SPAM),
        ("bogofilter", ["X-Bogosity: Ham, tests=bogofilter"], HAM),
        ("bogofilter", ["X-Bogosity: Unsure, tests=bogofilter"], NONE),
        ("dspam", ["X-DSPAM-Result: Spam"], SPAM),
        ("dspam", ["X-DSPAM-Result: Innocent"], HAM),
        ("proofpoint", ["X-Proofpoint-Spam-Details: rule=spam policy=default score=9"], SPAM),
        ("proofpoint", ["X-Proofpoint-Spam-Details: rule=notspam policy=default"], HAM),
        ("proofpoint", ["X-Proofpoint-Spam-Details: rule=outbound_notspam score=0"], NONE),
        ("gmail", ["X-Gm-Spam: 1", "X-Gm-Phishy: 0"], SPAM),
        ("gmail", ["X-Gm-Spam: 0", "X-Gm-Phishy: 0"], HAM),
        ("gmail", ["X-Gm-Phishy: 1"], SPAM),
    ],
)
def test_preset(preset, fields, expected):
    assert verdict([PRESETS[preset]], *fields) is expected


def test_nothing_configured_is_no_verdict():
    assert verdict([], "X-Spam-Flag: YES") is NONE


def test_mailscanner_names_the_site():
    assert verdict([mailscanner("Acme")], "X-Acme-MailScanner-SpamCheck: spam, x") is SPAM
    assert verdict([mailscanner("Acme")], "X-Acme-MailScanner-SpamCheck: not spam, x") is HAM
    assert verdict([mailscanner("Acme")], "X-Evil-MailScanner-SpamCheck: spam, x") is NONE


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("spam", SPAM),
        ("SPAMMY 9", SPAM),
        ("\n\tspam", SPAM),
        ("not spam", HAM),
        ("", HAM),
        ("spam\r\n\t(really)", SPAM),
        ("sp\r\n am", HAM),
        ("spam \udcff", SPAM),
        (" \tspam\t ", SPAM),
    ],
)
def test_own_header_by_value(value, expected):
    assert verdict([by_value("X-Our-Filter", "spam*")], f"X-OUR-Filter: {value}") is expected


def test_brackets_of_an_own_header_are_plain_text():
    assert verdict([by_value("X-F", "[spam]?")], "X-F: [SPAM]!") is SPAM
    assert verdict([by_value("X-F", "[spam]")], "X-F: s") is HAM


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5.9", HAM),
        ("6", SPAM),
        ("6.0", SPAM),
        ("6.1", SPAM),
        ("-7", HAM),
        ("score=7.5 required=6", SPAM),
        ("high", HAM),
        ("nan", HAM),
        # Every form in which a number is written.
        (".5", HAM),
        ("+.5", HAM),
        ("-.5", HAM),
        ("0.5", HAM),
        ("00.5", HAM),
        ("+6", SPAM),
        ("6.", SPAM),
        ("5.", HAM),
        ("6e0", SPAM),
        ("1e3", SPAM),
        ("1E+3", SPAM),
        ("7e-1", HAM),
        ("6,5", SPAM),
        ("5,9", HAM),
        (",9", HAM),
        ("1,234.5", SPAM),
        ("6.5,5.0", SPAM),
        ("6.5/5.0", SPAM),
        ("5.5/6.5", HAM),
        ("score=6.5/5.0", SPAM),
        ("score: 6.5", SPAM),
        ("6.5 (++++++)", SPAM),
        ("(6.5)", SPAM),
        ("[4.10 / 15.00]", HAM),
        ("default: False [14.10 / 15.00]; A(0.00)[]", SPAM),
        ("6.5points", SPAM),
        # The score by its name goes before other numbers, a part of a word or version is none.
        ("required=6 score=5.5", HAM),
        ("tests=9, score=5.5", HAM),
        ("Yes, hits=6.5 required=5.0", SPAM),
        ("SpamAssassin 3.4.6: 6.5", SPAM),
        ("SpamAssassin 13.4.6", HAM),
        ("192.0.2.1", HAM),
        ("rule9 5", HAM),
        ("BAYES_99", HAM),
        ("noscore=9 score=5", HAM),
        ("mlxscore=99 score=0", HAM),
        ("rule=spam score=100 mlxscore=0", SPAM),
        # A bar counts by its length.
        ("++++++", SPAM),
        ("+++++", HAM),
        ("******", SPAM),
        ("ssssss", SPAM),
        ("------", HAM),
        ("/", HAM),
        ("+-+-+-+-", HAM),
        ("#######", HAM),
        # What is no number.
        ("", HAM),
        ("inf", HAM),
        ("-inf", HAM),
        ("Infinity", HAM),
        (".", HAM),
        ("+", HAM),
        ("e9", HAM),
        ("score=", HAM),
        ("score=high 7", SPAM),
        ("9" * 60_000, SPAM),
        ("0" * 60_000 + ".5", HAM),
        ("1e99999999999", SPAM),
        ("1e-99999999999", HAM),
        ("-" + "9" * 60_000, HAM),
    ],
)
def test_own_header_by_score(value, expected):
    assert verdict([by_score("X-Our-Score", 6.0)], f"X-Our-Score: {value}") is expected


def test_a_limit_may_be_negative():
    assert verdict([by_score("X-Our-Score", -5)], "X-Our-Score: ----") is SPAM
    assert verdict([by_score("X-Our-Score", -5)], "X-Our-Score: -----") is SPAM
    assert verdict([by_score("X-Our-Score", -5)], "X-Our-Score: ------") is HAM
    assert verdict([by_score("X-Our-Score", 0)], "X-Our-Score: /") is SPAM
    assert verdict([by_score("X-Our-Score", 0.1)], "X-Our-Score: /") is HAM


def test_an_own_filter_stands_on_this_host():
    for own in (by_value("X-F", "a"), by_score("X-F", 1)):
        assert own.stands is Stands.MILTER | Stands.REINJECTION


@pytest.mark.parametrize(
    "value",
    [
        "score=" * 10_000,
        "score" + " " * 60_000,
        "1." * 30_000,
        "1," * 30_000,
        "1,234" * 12_000,
        "1e" * 30_000,
        "+-" * 30_000,
        "9" * 60_000 + ".1.2",
        "a*" * 30_000,
    ],
)
def test_no_value_of_an_own_header_is_slow(value):
    filters = [by_score("X-F", 6.0), by_value("X-F", "*a*b*c*1*z*"), by_value("X-F", "*score*=?")]
    judge = Judge(tuple(filters))
    began = process_time()
    judge([("x-f", value)])
    assert process_time() - began < 1


@pytest.mark.parametrize(
    "own",
    [
        by_score("X-F", 6.0),
        by_score("X-F", 0.5),
        by_score("X-F", -5.0),
        by_score("X-F", 1e20),
        by_value("X-F", "spam*"),
        by_value("X-F", " yes "),
        by_value("X-F", "[SPAM]?"),
    ],
)
def test_the_sample_of_an_own_header_is_spam(own):
    assert own.tests[0].says(own.tests[0].sample) is SPAM


def test_several_filters_any_spam_wins_and_silence_of_one_that_marks_ham_is_no_verdict():
    both = [PRESETS["rspamd"], PRESETS["amavis"]]
    assert verdict(both) is NONE
    assert verdict(both, "X-Spam-Flag: NO") is HAM
    assert verdict(both, "X-Spam: Yes") is SPAM
    assert verdict(both, "X-Spam: Yes", "X-Spam-Flag: NO") is CONFLICTING


def test_judgement_names_the_field_that_decided():
    judgement = Judge((PRESETS["amavis"],))([("x-spam-flag", "NO"), ("x-spam-flag", " YES")])
    assert judgement.field == "x-spam-flag: YES"


def test_only_the_named_fields_are_wanted():
    assert field_names((PRESETS["amavis"],)) == {"x-spam-flag"}


def test_the_words_of_the_log_and_the_metrics():
    assert [each.value for each in Verdict] == ["spam", "ham", "none", "conflicting"]
    assert {each for each in Verdict if each.is_spam} == {SPAM, CONFLICTING}


def test_a_field_is_quoted_as_one_line_and_not_without_end():
    judge = Judge((PRESETS["amavis"],))
    assert judge([("x-spam-flag", " NO\r\n ")]).field == "x-spam-flag: NO"
    assert judge([("x-spam-flag", "YES\r\n\t(" + "x" * 2000)]).field == (
        "x-spam-flag: YES (" + "x" * 995
    )


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a \r\n\t b", "a\r\r\n \r\n b"])
def test_a_bare_cr_folds_as_well(value):
    assert verdict([by_value("X-F", "a b")], f"X-F: {value}") is SPAM


def test_silence_names_no_field_and_the_names_are_those_that_are_read():
    judge = Judge((PRESETS["spamassassin"],))
    assert judge([]) == judge.silence == (NONE, "")
    assert set(judge.names) == {"x-spam-flag", "x-spam-status"}
