"""What the CRM rejected is handed in again by ``crm-milter resend``, once, and to the byte."""

import os
import re

import pytest
from letter import JOE
from rejecting import accept, both, bounce_later, deliver, lab, resend

from crm_milter.resend.record import Record
from lab.base import wait_for

__all__ = ["both", "lab"]  # fixtures


@pytest.fixture
def sinks(both):
    return both[1]


TEXT = (
    b"Received: from a by b; Sat, 28 Nov 2026 12:00:00 +0000\r\n"
    b"From: Joe <joe@customer.example>\r\n"
    b"To: %s@solarmora.com\r\nX-CRM-Milter: 0123456789abcdef\r\nSubject: caf\xc3\xa9\r\n\r\n"
    b"--=_later\r\n.\r\n..\r\nFrom here\r\n\xff\xe9 8 bit\r\n \t\r\n\r\n"
)


def rejected(lab, sinks, way, sender=JOE, more=(), rcpt=""):
    """Send a message that its target rejects, and wait for what becomes of it."""
    text = TEXT % way.encode()
    lab.send(sender, [f"<{way}@solarmora.com>{rcpt}", *more], text)
    bounce_later(lab, sinks)
    lab.postfix.wait_empty_queue(30)
    return text


def end_of(received):
    """A message that arrived, without what Postfix has put before it."""
    return received.data[received.data.index(b"Received: from a by b") :]


@pytest.mark.parametrize("way", ["refuse", "data", "slow", "later", "silent", "help"])
@pytest.mark.parametrize(
    "sender", [JOE, "<J+x=y@Kunde.example> RET=HDRS ENVID=own", "<jösé@kunde.example> SMTPUTF8"]
)
def test_a_report_is_handed_in_again_to_the_byte(lab, sinks, tmp_path, way, sender):
    text = rejected(lab, sinks, way, sender, rcpt=" NOTIFY=NEVER ORCPT=rfc822;victim@x.example")
    (path,) = deliver(lab, tmp_path / "box")
    accept(sinks)
    lab.sink.clear()
    status, out, err = resend(lab, tmp_path, path)
    assert (status, err) == (0, "")
    lab.postfix.wait_empty_queue()
    # Without DSN nobody is told the old sender but by From.
    address = re.match("<([^>]*)>", sender if way != "silent" else JOE)[1]
    shown = re.fullmatch(
        r"sent again: to=<(\S+)> from=<(\S+)>(?: rejected_as=\w+)? queue_id=(\w+) \S+: 250 .*\n",
        out,
    )
    assert shown, out
    assert shown.groups()[:2] == (f"{way}@solarmora.com", address)
    far = sinks[f"{way.replace('help', 'refuse')}.example"]
    (got,) = far.received
    marker = re.findall(rb"X-CRM-Milter: [0-9a-f]{16}\r\n", got.data)
    assert len(marker) == 2  # that of the sender, and one of this time
    assert end_of(got).replace(marker[-1], b"") == text
    assert ("ENVID=" in got.delivery.mail_from) is (way != "silent")
    assert {each.recipient for each in lab.sink.received} == (
        {"team@solarmora.com"} if way == "help" else set()
    )


def test_what_was_handed_in_is_not_handed_in_again(lab, sinks, tmp_path):
    rejected(lab, sinks, "refuse")
    box = tmp_path / "box"
    (path,) = deliver(lab, box)
    (tmp_path / "copy").write_bytes(path.read_bytes())
    accept(sinks)
    status, out, _ = resend(lab, tmp_path, box, "--dry-run")
    assert (
        status,
        out.startswith("would send again: to=<refuse@solarmora.com> from=<joe@customer.example>"),
    ) == (0, True)
    assert path.exists()
    assert resend(lab, tmp_path, box)[0] == 0
    assert [each.name for each in (box / "cur").iterdir()] == [f"{path.name}:2,P"]
    assert not path.exists()
    assert resend(lab, tmp_path, box) == (0, "0 messages, 0 not sent\n", "")
    status, out, err = resend(lab, tmp_path, tmp_path / "copy")
    assert (status, out[:18], err) == (0, "sent again before:", "")
    status, out, err = resend(lab, tmp_path, "-", stdin=(tmp_path / "copy").read_bytes())
    assert (status, out[:18], err) == (0, "sent again before:", "")
    status, out, err = resend(lab, tmp_path, tmp_path / "copy", "--dry-run")
    assert (status, out[:18], err) == (0, "sent again before:", "")
    lab.postfix.wait_empty_queue()
    assert len(sinks["refuse.example"].received) == 1


def test_a_dry_run_writes_nothing(lab, sinks, tmp_path):
    rejected(lab, sinks, "refuse")
    (path,) = deliver(lab, tmp_path / "box")
    state = tmp_path / "none"
    status, out, err = resend(lab, state, path, "--dry-run")
    assert (status, out[:17], err) == (0, "would send again:", "")
    assert not state.exists()
    (tmp_path / "resent").mkdir()
    status, out, err = resend(lab, tmp_path, path, "--dry-run")
    assert (status, out[:17]) == (0, "would send again:")
    record = tmp_path / "resent"
    assert err == (
        f"crm-milter: warning: cannot tell what was sent again before: {record}: is a directory\n"
    )


def test_a_record_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "resent"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="resent") as caught:
            Record(descriptor, path).add("known", "4bXq1Z")
    finally:
        os.close(descriptor)
    assert caught.value.filename == str(path)


def test_a_crm_that_still_rejects_gives_a_new_report_that_can_be_handed_in(lab, sinks, tmp_path):
    rejected(lab, sinks, "refuse")
    deliver(lab, tmp_path / "box")
    lab.sink.clear()
    assert resend(lab, tmp_path, tmp_path / "box")[0] == 0
    lab.postfix.wait_empty_queue()
    (again,) = deliver(lab, tmp_path / "again")
    accept(sinks)
    status, out, _ = resend(lab, tmp_path, again)
    assert (status, out[:11]) == (0, "sent again:")
    lab.postfix.wait_empty_queue()
    (got,) = sinks["refuse.example"].received
    assert got.data.count(b"X-CRM-Milter:") == 2


@pytest.mark.parametrize(("sender", "more"), [("<>", []), (JOE, ["<alice@x.example>"])])
def test_a_copy_that_came_at_once_is_handed_in_as_it_is(lab, sinks, tmp_path, sender, more):
    text = rejected(lab, sinks, "refuse", sender, more)
    deliver(lab, tmp_path / "box")
    accept(sinks)
    lab.sink.clear()
    status, out, err = resend(lab, tmp_path, tmp_path / "box")
    assert (status, err) == (0, "")
    assert f"to=<refuse@solarmora.com> from={sender} " in out
    lab.postfix.wait_empty_queue()
    (got,) = sinks["refuse.example"].received
    assert end_of(got).startswith(text.partition(b"\r\n\r\n")[0])
    assert "alice@x.example" not in lab.sink.recipients


def test_the_copy_of_a_team_is_handed_in_with_the_author_as_sender(lab, sinks, tmp_path):
    rejected(lab, sinks, "help")
    (path,) = deliver(lab, tmp_path / "team", "team@solarmora.com")
    accept(sinks)
    status, out, err = resend(lab, tmp_path, path)
    assert (status, err) == (0, "")
    assert "to=<help@solarmora.com> from=<joe@customer.example> " in out
    assert [each.name for each in (tmp_path / "team" / "cur").iterdir()] == [f"{path.name}:2,P"]
    lab.postfix.wait_empty_queue()
    (got,) = sinks["refuse.example"].received
    assert b"Delivered-To" not in got.data


def test_another_recipient(lab, sinks, tmp_path):
    rejected(lab, sinks, "refuse")
    (path,) = deliver(lab, tmp_path / "box")
    status, _, err = resend(lab, tmp_path, path, "--to", "good@solarmora.com")
    assert (status, err) == (0, "")
    lab.postfix.wait_empty_queue()
    assert sinks["good.example"].recipients == ["secret@good.example"]


def test_a_server_that_does_not_take_it_leaves_it_where_it_is(lab, sinks, tmp_path):
    rejected(lab, sinks, "refuse")
    (path,) = deliver(lab, tmp_path / "box")
    lab.milter.kill()
    try:
        status, out, err = resend(lab, tmp_path, tmp_path / "box")
    finally:
        lab.milter.start()
    assert (status, out) == (1, "")
    assert f"{path}: not sent again: to=<refuse@solarmora.com>" in err
    assert ": 451 " in err
    assert path.exists()
    accept(sinks)
    wait_for("the milter", lab.milter.running)
    assert resend(lab, tmp_path, tmp_path / "box")[0] == 0


def test_a_message_that_postfix_cut_is_refused(lab, sinks, tmp_path):
    rejected(lab, sinks, "refuse")
    (path,) = deliver(lab, tmp_path / "box")
    cut = path.read_bytes().replace(
        b"Content-Type: message/rfc822", b"Content-Type: text/rfc822-headers"
    )
    path.write_bytes(cut)
    status, out, err = resend(lab, tmp_path, path)
    assert (status, out) == (1, "")
    why = "it holds only the header of the message: raise bounce_size_limit in main.cf"
    assert err == f"crm-milter: {path}: {why}\n"


def test_a_report_of_success_is_refused(lab, sinks, tmp_path):
    lab.send(JOE, ["<good@solarmora.com> NOTIFY=SUCCESS"], TEXT % b"good")
    lab.postfix.wait_empty_queue()
    for path in deliver(lab, tmp_path / "box"):
        status, _, err = resend(lab, tmp_path, path)
        assert (status, "and no failure" in err) == (1, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((b"secret@refuse.example\nOriginal-Recipient: rfc822;refuse@solarmora.com",
          b"x@elsewhere.example\nOriginal-Recipient: rfc822; x@elsewhere.example"),
         "no rule replaces <x@elsewhere.example>, which it was sent to: use --to ADDRESS"),
        ((b"Action: failed", b"Action: delayed"), "it reports delayed, and no failure"),
        ((b": message/rfc822", b": text/plain"), "it does not hold the message"),
        ((b"multipart/report", b"multipart/mixed"),
         "it is a bounce in a form that is not read: save the message that it returns to a file,"
         " and hand in that file"),
    ],
)  # fmt: skip
def test_what_is_none_of_ours_is_refused_in_one_sentence(lab, sinks, tmp_path, change, said):
    rejected(lab, sinks, "refuse")
    (path,) = deliver(lab, tmp_path / "box")
    path.write_bytes(path.read_bytes().replace(*change))
    assert resend(lab, tmp_path, path) == (1, "", f"crm-milter: {path}: {said}\n")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"\xff\x00\n\n",
        b"Content-Type: multipart/report; report-type=delivery-status\n\n",
    ],
)
def test_nonsense_is_refused(lab, tmp_path, text):
    path = tmp_path / "message"
    path.write_bytes(text)
    status, out, err = resend(lab, tmp_path, path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "Traceback" not in err


def test_what_is_not_there(lab, tmp_path):
    status, out, err = resend(lab, tmp_path, tmp_path / "none")
    assert (status, out, err) == (
        1,
        "",
        f"crm-milter: {tmp_path}/none: no such file or directory\n",
    )
    status, _, err = resend(lab, tmp_path, tmp_path)
    assert (status, err) == (1, f"crm-milter: {tmp_path}: is a directory, but not a maildir\n")
