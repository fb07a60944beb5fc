"""NOTIFY and ORCPT at the next hop, and who hears of a delivery, a delay and a refusal.

doc/postfix-milter.md: 2.5 (parameters of addrcpt), 2.6 (a bounce, or a report of success or
delay, shows the target), 3 (the alias's own report of success).
"""

from contextlib import ExitStack

import pytest
from letter import HAM, JOE, SPAM, letter

from lab.sink import Sink

CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: quiet
    match: [help@solarmora.com, a+b=c@solarmora.com, '"odd one"@solarmora.com']
    replace_with: quiet-secret@crm.example
    also_deliver_to:
      - copy-secret@crm.example
      - {address: boss@solarmora.com, suppress_bounces: false}
  - name: loud
    match: loud@solarmora.com
    replace_with: loud-secret@crm.example
    suppress_bounces: false
  - name: old
    match: old@solarmora.com
    replace_with: quiet-secret@old.example
    also_deliver_to: [copy-secret@old.example]
  - name: old-loud
    match: old-loud@solarmora.com
    replace_with: loud-secret@old.example
    suppress_bounces: false
  - name: same-quiet
    match: z-quiet@solarmora.com
    replace_with: same-secret@crm.example
  - name: same-loud
    match: a-loud@solarmora.com
    replace_with: same-secret@crm.example
    suppress_bounces: false
  - name: list
    match: list@solarmora.com
    also_deliver_to: [copy-secret@crm.example, copy-secret@old.example]
"""
MATCHED = ("help", "loud", "old", "old-loud", "z-quiet", "a-loud", "list")
EVERYTHING = "NOTIFY=SUCCESS,DELAY,FAILURE"
POSTMASTER = "postmaster@mail.lab.example"


@pytest.fixture(scope="module")
def sinks():
    """The CRM, and one behind a server without DSN; customers and colleagues are elsewhere."""
    with ExitStack() as stack:
        yield {
            "crm.example": stack.enter_context(Sink()),
            "old.example": stack.enter_context(Sink(dsn=False)),
        }


@pytest.fixture(scope="module")
def module_lab(make_module_lab, sinks):
    aliases = {f"{name}@solarmora.com": "it@solarmora.com" for name in MATCHED if name != "list"}
    return make_module_lab(
        CONFIG,
        virtual_alias_maps=aliases,
        transport_maps=sinks,
        main={"notify_classes": "bounce", "delay_warning_time": "1s"},
    )


@pytest.fixture
def lab(module_lab, sinks):
    for sink in sinks.values():
        sink.accept()
        sink.data_reply = "250 2.0.0 taken"
        sink.clear()
    module_lab.fresh()
    return module_lab


QUIET = {
    "quiet-secret@crm.example": "ORCPT=rfc822;{} NOTIFY=NEVER",
    "copy-secret@crm.example": "ORCPT=rfc822;copy-secret@crm.example NOTIFY=NEVER",
}


@pytest.mark.parametrize(
    ("rcpt", "orcpt"),
    [
        ("<Help@solarmora.com>", "Help@solarmora.com"),
        ("<@relay:help@solarmora.com> NOTIFY=FAILURE", "help@solarmora.com"),
        ("<help@solarmora.com> notify=success,delay", "help@solarmora.com"),
        (f"<help@solarmora.com> {EVERYTHING}", "help@solarmora.com"),
        ("<help@solarmora.com> NOTIFY=NEVER", "help@solarmora.com"),
        ("<help@solarmora.com> ORCPT=rfc822;x+2By+3Dz@x.example", "x+2By+3Dz@x.example"),
        ("<help@solarmora.com> orcpt=RFC822;x+20y@x.example NOTIFY=DELAY", "x+20y@x.example"),
        ("<a+b=c@solarmora.com>", "a+2Bb+3Dc@solarmora.com"),
        ('<"A+b=c"@SolarMora.com>', '"A+2Bb+3Dc"@SolarMora.com'),
        ('<"odd one"@solarmora.com>', '"odd+20one"@solarmora.com'),
    ],
)
def test_targets_and_copies_are_never_reported_on(lab, sinks, rcpt, orcpt):
    outcome = lab.send(JOE, [rcpt], letter(HAM))
    for address, parameters in QUIET.items():
        (found,) = (e.rcpt.raw for e in sinks["crm.example"].received if e.recipient == address)
        assert found.replace("RFC822", "rfc822") == f"<{address}> {parameters.format(orcpt)}"
    listed = "NOTIFY=" in rcpt.upper()
    asked = "NEVER" if listed and "FAILURE" not in rcpt else "FAILURE"
    assert outcome.of("boss@solarmora.com").rcpt.notify == asked


@pytest.mark.parametrize(
    ("rcpts", "address", "parameters"),
    [
        ("<loud@solarmora.com>", "loud-secret", "loud@solarmora.com NOTIFY=FAILURE"),
        (
            "<loud@solarmora.com> NOTIFY=SUCCESS,DELAY",
            "loud-secret",
            "loud@solarmora.com NOTIFY=NEVER",
        ),
        (
            f"<loud@solarmora.com> {EVERYTHING} ORCPT=rfc822;x@x.org",
            "loud-secret",
            "x@x.org NOTIFY=FAILURE",
        ),
        ("<loud@solarmora.com> NOTIFY=NEVER", "loud-secret", "loud@solarmora.com NOTIFY=NEVER"),
        # One target of two rules: NEVER only if both say so, ORCPT of the first by alphabet.
        (
            "<z-quiet@solarmora.com>,<a-loud@solarmora.com>",
            "same-secret",
            "a-loud@solarmora.com NOTIFY=FAILURE",
        ),
        (
            "<a-loud@solarmora.com> NOTIFY=NEVER ORCPT=rfc822;x@x.org,<z-quiet@solarmora.com>",
            "same-secret",
            "x@x.org NOTIFY=NEVER",
        ),
    ],
)
def test_a_rule_may_let_the_customer_hear_of_failures_only(lab, sinks, rcpts, address, parameters):
    for order in (rcpts.split(",<"), rcpts.split(",<")[::-1]):
        sinks["crm.example"].clear()
        lab.send(JOE, ["<" + each.lstrip("<") for each in order], letter(HAM))
        found = [each.rcpt.raw for each in sinks["crm.example"].received]
        assert found == [f"<{address}@crm.example> ORCPT=rfc822;{parameters}"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("old", ["<copy-secret@old.example>", "<quiet-secret@old.example>"]),
        ("old-loud", ["<loud-secret@old.example>"]),
    ],
)
def test_a_next_hop_without_dsn_gets_bare_addresses(lab, sinks, name, expected):
    lab.send(JOE, [f"<{name}@solarmora.com> {EVERYTHING} ORCPT=rfc822;x@x.org"], letter(HAM))
    raw = sorted(each.rcpt.raw for each in sinks["old.example"].received)
    assert raw == expected


@pytest.mark.parametrize("field", [HAM, SPAM])
def test_who_stays_keeps_his_own_parameters(lab, field):
    """A rule without replace_with, and mail that is left."""
    rcpt = f"<{'list' if field == HAM else 'a+b=c'}@solarmora.com> NOTIFY=SUCCESS,DELAY"
    outcome = lab.send(JOE, [f"{rcpt} ORCPT=rfc822;x+2By@x.org"], letter(field))
    kept = [each.rcpt for each in outcome.received if each.recipient.endswith("solarmora.com")]
    assert [(each.notify, each.orcpt) for each in kept] == [("SUCCESS,DELAY", "rfc822;x+2By@x.org")]


def _heard(lab, address="joe@customer.example"):
    """What the mail system wrote to somebody."""
    return [each.data.decode() for each in lab.sink.received if each.recipient == address]


@pytest.mark.parametrize("asked", ["NOTIFY=SUCCESS,DELAY", EVERYTHING, "NOTIFY=SUCCESS"])
@pytest.mark.parametrize("sender", [JOE, f"{JOE} RET=FULL ENVID=e1"])
def test_who_asks_for_success_never_learns_the_target(lab, sinks, sender, asked):
    rcpts = [f"<{name}@solarmora.com> {asked}" for name in MATCHED]
    # That such a report would name an address behind a server without DSN:
    lab.send(sender, [*rcpts, f"<alice@old.example> {asked}"], letter(HAM))
    assert len(sinks["crm.example"].received) == 4
    assert len(sinks["old.example"].received) == 4
    heard = _heard(lab)
    assert any("alice@old.example" in each for each in heard)
    assert any("<help@solarmora.com>: alias expanded" in each for each in heard)
    assert not any("secret" in each or "boss@" in each for each in heard)


def test_who_asks_for_delay_never_learns_the_target(lab, sinks):
    for name in ("quiet-secret", "copy-secret", "loud-secret", "same-secret", "alice"):
        for domain, sink in sinks.items():
            sink.defer(f"{name}@{domain}")
    rcpts = [f"<{name}@solarmora.com> {EVERYTHING}" for name in (*MATCHED, "a+b=c")]
    sent = lab.send(JOE, [*rcpts, f"<alice@crm.example> {EVERYTHING}"], letter(HAM), wait=False)
    lab.postfix.wait_log(rf"{sent.queue_id}: sender delay notification")
    for sink in sinks.values():
        sink.accept()
    lab.postfix.flush()
    lab.postfix.wait_empty_queue()
    heard = _heard(lab)
    assert any("alice@crm.example" in each and "delayed" in each for each in heard)
    assert not any("secret" in each for each in heard)


@pytest.mark.parametrize("how", ["rcpt", "data"])
@pytest.mark.parametrize(("name", "domain"), [("help", "crm.example"), ("old", "old.example")])
def test_a_crm_that_refuses(lab, sinks, how, name, domain):
    """The customer hears nothing, the postmaster all of it."""
    if how == "rcpt":
        sinks[domain].refuse("*", "550 5.1.1 no such case")
    else:
        sinks[domain].data_reply = "554 5.7.0 no such case"
    for asked in ("", f" {EVERYTHING}", " NOTIFY=FAILURE"):
        lab.sink.clear()
        lab.send(JOE, [f"<{name}@solarmora.com>{asked}"], letter(HAM))
        assert not any("secret" in each or "no such case" in each for each in _heard(lab))
        if "SUCCESS" not in asked:
            assert _heard(lab) == []
        (copy,) = _heard(lab, POSTMASTER)
        assert f"<quiet-secret@{domain}>" in copy
        assert f"<copy-secret@{domain}>" in copy
        assert "no such case" in copy


def test_a_bounce_of_somebody_else_does_not_name_the_target(lab, sinks):
    sinks["crm.example"].refuse("*", "550 5.1.1 no such case")
    lab.send(JOE, ["<help@solarmora.com>", "<alice@crm.example>"], letter(HAM))
    (bounce,) = _heard(lab)
    assert "<alice@crm.example>" in bounce
    assert "secret" not in bounce
    (copy,) = _heard(lab, POSTMASTER)
    assert "secret" in copy


@pytest.mark.parametrize(
    ("asked", "hears"),
    [
        ("", True),
        ("NOTIFY=NEVER", False),
        ("NOTIFY=SUCCESS", False),
        ("NOTIFY=DELAY", False),
        ("NOTIFY=delay,success", False),
        ("NOTIFY=success,failure", True),
        ("NOTIFY=FAILURE", True),
    ],
)
def test_a_rule_that_does_not_suppress_bounces(lab, sinks, asked, hears):
    for domain, name in (("crm.example", "loud"), ("old.example", "old-loud")):
        lab.sink.clear()
        sinks[domain].refuse("*", "550 5.1.1 no such case")
        lab.send(JOE, [f"<{name}@solarmora.com> {asked}"], letter(HAM))
        assert any("no such case" in each for each in _heard(lab)) is hears
        if hears:
            assert f"Original-Recipient: rfc822;{name}@solarmora.com" in "".join(_heard(lab))


def test_a_copy_may_let_the_customer_hear(lab, sinks):
    lab.sink.refuse("boss@solarmora.com", "550 5.1.1 he left")
    lab.send(JOE, ["<help@solarmora.com>"], letter(HAM))
    (bounce,) = _heard(lab)
    assert "he left" in bounce
    assert "secret" not in bounce
    assert len(sinks["crm.example"].received) == 2


def test_a_refused_copy_does_not_keep_the_crm_from_its_mail(lab, sinks):
    sinks["crm.example"].refuse("copy-secret@crm.example")
    lab.send(JOE, ["<help@solarmora.com>"], letter(HAM))
    assert sinks["crm.example"].recipients == ["quiet-secret@crm.example"]
    assert _heard(lab) == []


def test_without_notify_classes_nobody_hears_of_a_dead_crm(make_lab, make_sink):
    crm = make_sink()
    crm.refuse("*")
    lab = make_lab(CONFIG, transport_maps={"crm.example": crm})
    assert lab.send(JOE, ["<z-quiet@solarmora.com>"], letter(HAM)).recipients == []
    assert [each.address for each in crm.refused] == ["same-secret@crm.example"]
