"""pause --hold and resume with Postfix's hold queue: only our messages are released."""

import pytest
from letter import JOE, letter
from serving import run

from lab.base import wait_for

SPAM, HAM = "X-Spam-Flag: YES", "X-Spam-Flag: NO"
CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: support
    match: help@solarmora.com
    replace_with: support@crm.example
    also_deliver_to: team@solarmora.com
  - {name: kept, match: kept@solarmora.com, replace_with: k@crm.example, on_spam: quarantine}
"""


@pytest.fixture
def lab(make_lab, tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    aliases = "inline:{help@solarmora.com=it@solarmora.com}"
    return make_lab(CONFIG, main={"virtual_alias_maps": aliases})


def command(lab, *arguments):
    return run(*arguments, "--config", lab.milter.config)


def send(lab, recipient="help@solarmora.com", *fields, wait=True):
    return lab.send(JOE, [f"<{recipient}>"], letter(*(fields or (HAM,))), wait=wait)


def held(lab):
    queue = lab.postfix.queue()
    return sorted(entry["queue_id"] for entry in queue if entry["queue_name"] == "hold")


def test_held_mail_is_released_whole_to_the_crm_and_nothing_else(lab, tmp_path):
    assert send(lab).recipients == ["support@crm.example", "team@solarmora.com"]
    assert command(lab, "pause", "support", "--for", "1h", "--hold").returncode == 0
    before = len(lab.sink.received)
    ours = sorted(send(lab, wait=False).queue_id for _ in range(3))
    spam = send(lab, "kept@solarmora.com", SPAM, wait=False).queue_id
    assert held(lab) == sorted([*ours, spam])
    assert send(lab, "help@solarmora.com", SPAM, wait=False).queue_id not in held(lab)
    own = send(lab, wait=False).queue_id  # an administrator deleted it
    lab.postfix.postsuper("-d", own)
    done = run("resume", "support", "--config-directory", lab.postfix.config)
    assert (done.returncode, done.stdout) == (0, "support: resumed, 3 messages released\n"), done
    assert held(lab) == [spam]
    lab.postfix.flush()
    wait_for("the mail", lambda: len(lab.sink.received) == before + 7)
    got = sorted(each.recipient for each in lab.sink.received[before:])
    assert got == ["it@solarmora.com", *["support@crm.example"] * 3, *["team@solarmora.com"] * 3]
    assert send(lab, wait=False).queue_id not in held(lab)
    assert not [each.name for each in tmp_path.iterdir() if each.name.startswith("held.")]


def test_paused_mail_without_hold_goes_where_unrouted_mail_goes(lab):
    assert command(lab, "pause", "support", "--for", "1h").returncode == 0
    assert send(lab).recipients == ["it@solarmora.com"]
    assert command(lab, "resume", "support").returncode == 0
    assert send(lab).recipients == ["support@crm.example", "team@solarmora.com"]
