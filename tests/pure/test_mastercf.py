"""One option of one service of master.cf changes; every other byte stays."""

import pytest

from crm_milter.postfix.mastercf import with_option

HEAD = "# service type  private\n\n"
SMTP = "smtp      inet  n       -       y       -       -       smtpd\n"
SUBMISSION = "submission inet n - y - - smtpd\n"


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        (SMTP, "x", SMTP + "  -o m=x\n"),
        (SMTP.rstrip("\n"), "x", SMTP + "  -o m=x"),
        (SMTP + "\t-o a=b\n", "x", SMTP + "\t-o a=b\n\t-o m=x\n"),
        (SMTP + "  -o a=b -o m=old -o c=d\n", "x", SMTP + "  -o a=b -o m=x -o c=d\n"),
        (SMTP + "  -o m=\n", "x", SMTP + "  -o m=x\n"),
        (SMTP + "  -om=old\n", "x", SMTP + "  -om=x\n"),
        (SMTP + "  -o { m = old, older }\n", "x", SMTP + "  -o { m = x }\n"),
        (SMTP + "  -o {m=old}\n", "x", SMTP + "  -o {m=x}\n"),
        (SMTP + "  -o { m = }\n", "x", SMTP + "  -o { m =x }\n"),
        (SMTP + "  -o\n     m=old\n", "x", SMTP + "  -o\n     m=x\n"),
        # Marked blocks of other tools stay where they are.
        (
            f"# BEGIN MANAGED\n{SMTP}  -o a=b\n# END MANAGED\n{SUBMISSION}",
            "x",
            f"# BEGIN MANAGED\n{SMTP}  -o a=b\n  -o m=x\n# END MANAGED\n{SUBMISSION}",
        ),
        # Comments and empty lines within an entry.
        (
            f"{SMTP}#  -o m=no\n\n  -o a=b\n{SUBMISSION}  -o m=its\n",
            "x",
            f"{SMTP}#  -o m=no\n\n  -o a=b\n  -o m=x\n{SUBMISSION}  -o m=its\n",
        ),
        (
            f"{SMTP}  -o m=old\n  # says\n  -o c=d\n",
            "x",
            f"{SMTP}  -o m=x\n  # says\n  -o c=d\n",
        ),
        # Another name that only begins or ends so.
        (SMTP + "  -o mm=a -o n_m=b\n", "x", SMTP + "  -o mm=a -o n_m=b\n  -o m=x\n"),
        (SMTP.replace("\n", "\r\n"), "x", SMTP.replace("\n", "\r\n") + "  -o m=x\r\n"),
        (SMTP + "  -o m=old\n  -o a=b\n", None, SMTP + "  -o a=b\n"),
        (SMTP + "  -o a=b -o m=old\n", None, SMTP + "  -o a=b\n"),
        (SMTP + "  -o a=b\n", None, SMTP + "  -o a=b\n"),
        (SMTP + "  -o m=one -o m=two\n", "x", SMTP + "  -o m=x -o m=x\n"),
        (SMTP + "  -o a=\u2028b\n", "x", SMTP + "  -o a=\u2028b\n  -o m=x\n"),
    ],
)
def test_an_option_is_changed_where_it_is(before, value, after):
    assert with_option(HEAD + before, "smtp/inet", "m", value) == HEAD + after


def test_a_service_that_is_not_there():
    assert with_option(SUBMISSION, "smtp/inet", "m", "x") is None
    assert with_option("#" + SMTP, "smtp/inet", "m", "x") is None
