"""The whole rule model against the real Postfix: each key does on the wire what its line says."""

import base64

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lab.smtp import Session

CRM = "support@v1su.case.my-crm.example"
CONFIG = r"""
unrouted_to: it@solarmora.com
recipient_delimiter: "+-"
spam: amavis
known_recipients: FOLDER/known
include: "FOLDER/rules.d/*.yaml"
rules:
  - name: vip
    match: help@solarmora.com
    senders: ["@vip.example", "file:FOLDER/vips"]
    replace_with: vip@crm.example
  - name: bounced
    match: help@solarmora.com
    senders: "<>"
    replace_with: bounced@crm.example
  - name: outside
    match: [help@solarmora.com, "file:FOLDER/listed"]
    except_senders: "@solarmora.com"
    replace_with: support@v1su.case.my-crm.example
    add_headers: {X-Gm-Original-To: "{recipient}", X-Gm-Spam: "{spam}", X-Rule: "{rule}"}
  - name: table
    address_map: FOLDER/table
    propagate_extension: true
  - name: no-robots
    match: robots@solarmora.com
    replace_with: robots@crm.example
    automatic: {reply: leave, bounce: leave, bulk: leave}
  - name: small
    match: small@solarmora.com
    replace_with: small@crm.example
    max_size: 2k
  - name: smaller
    match: smaller@solarmora.com
    replace_with: smaller@crm.example
    max_size: 1000
    on_oversize: reject
  - name: sender
    match: sender@solarmora.com
    replace_with: sender@crm.example
    dead_letters: bounces@solarmora.com
  - name: catch-all
    match: "@catch.example"
    apply_to: unknown
    replace_with: lost@crm.example
"""
FILES = {
    "known": "alice@catch.example  alice\nbob@catch.example bob\n",
    "vips": "# those who pay more\n\nboss@customer.example\n",
    "listed": "info@solarmora.com\n",
    "table": (
        "# address  target\n"
        "one@map.example  one@crm.example\n"
        "many@map.example  first@crm.example,\n  second@crm.example\n"
        "@map.example  rest@crm.example\n"
    ),
}
FILES |= {
    f"rules.d/{order}.yaml": (
        f"rules:\n  - name: {name}\n    match: late@included.example\n    senders: '*'\n"
        f"    replace_with: {name}@crm.example\n"
    )
    for order, name in (("20", "second"), ("10", "first"))
}
JOE = "<joe@customer.example>"
NULL = "<>"


@pytest.fixture(scope="module")
def lab(make_module_lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rules.d").mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    aliases = {
        f"{local}@solarmora.com": "it@solarmora.com"
        for local in ("help", "info", "robots", "small", "smaller", "sender")
    }
    return make_module_lab(
        CONFIG.replace("FOLDER", str(folder)),
        virtual_alias_maps=aliases,
        main={"recipient_delimiter": "+-"},
    )


@pytest.fixture(autouse=True)
def _fresh(lab):
    lab.fresh()


def mail(body="hello\r\n", **fields):
    lines = {"From": "joe@customer.example", "Subject": "x", "X-Spam-Flag": "NO", **fields}
    header = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"{header}\r\n{body}".encode()


@pytest.mark.parametrize(
    ("sender", "recipient", "delivered"),
    [
        ("<joe@vip.example>", "help@solarmora.com", ["vip@crm.example"]),
        ("<Boss@Customer.Example>", "help@solarmora.com", ["vip@crm.example"]),
        (NULL, "help@solarmora.com", ["bounced@crm.example"]),
        (JOE, "help@solarmora.com", [CRM]),
        (JOE, "info@solarmora.com", [CRM]),
        ("<it@solarmora.com>", "help@solarmora.com", ["it@solarmora.com"]),
        (JOE, "one@map.example", ["one@crm.example"]),
        (JOE, "One+x@Map.Example", ["one+x@crm.example"]),
        (JOE, "one-x+y@map.example", ["one-x+y@crm.example"]),
        (JOE, "many@map.example", ["first@crm.example", "second@crm.example"]),
        (JOE, "other@map.example", ["rest@crm.example"]),
        (JOE, "postmaster@map.example", ["postmaster@map.example"]),
        (JOE, "nobody@catch.example", ["lost@crm.example"]),
        (JOE, "alice@catch.example", ["alice@catch.example"]),
        (JOE, "alice+x@catch.example", ["alice+x@catch.example"]),
        (JOE, "late@included.example", ["first@crm.example"]),  # in name order
    ],
)
def test_who_gets_it(lab, sender, recipient, delivered):
    assert lab.send(sender, [f"<{recipient}>"], mail()).recipients == delivered


@pytest.mark.parametrize(
    ("value", "delivered"),
    [
        ("auto-replied (vacation)", "it@solarmora.com"),
        ("auto-generated; type=x", "it@solarmora.com"),
        ("no (by hand)", "robots@crm.example"),
        ("(a comment)\r\n\tno; x=y", "robots@crm.example"),
    ],
)
def test_automatic_mail_is_left(lab, value, delivered):
    outcome = lab.send(JOE, ["<robots@solarmora.com>"], mail(Auto_Submitted=value))
    assert outcome.recipients == [delivered]


REPORT = 'multipart/report;\r\n\treport-type="delivery-status"; boundary=x'


@pytest.mark.parametrize(
    ("sender", "fields", "reason"),
    [
        (JOE, {"X_Autoreply": "yes"}, "automatic"),
        (JOE, {"Precedence": "Junk"}, "automatic"),
        (JOE, {"Content_Type": REPORT}, "automatic"),
        (JOE, {"X_Failed_Recipients": "anna@customer.example"}, "automatic"),
        (NULL, {}, "automatic"),
        (JOE, {"List_Id": "<list.customer.example>", "Precedence": "list"}, ""),  # routed here
        (JOE, {"X_Auto_Response_Suppress": "All", "List_Unsubscribe": "<x>"}, ""),
    ],
)
def test_each_class_of_automatic_mail_has_its_own_way(lab, sender, fields, reason):
    outcome = lab.send(sender, ["<robots@solarmora.com>"], mail(**fields))
    assert outcome.recipients == ["it@solarmora.com" if reason else "robots@crm.example"]
    assert outcome.log[0].endswith(f"reason={reason}") is bool(reason)


LINE = "x" * 78 + "\r\n"


def test_a_declared_size_over_the_limit_leaves_the_message(lab):
    outcome = lab.send(f"{JOE} SIZE=2049", ["<small@solarmora.com>"], mail())
    assert outcome.recipients == ["it@solarmora.com"]
    assert outcome.log[0].endswith("reason=oversize")


def test_a_client_that_lies_about_the_size_is_caught(lab):
    long = mail(LINE * 1000)
    outcome = lab.send(f"{JOE} SIZE=10", ["<small@solarmora.com>"], long)
    assert outcome.recipients == ["it@solarmora.com"]
    assert outcome.received[0].delivery.message.count(LINE.encode()) == 1000
    assert lab.send(JOE, ["<small@solarmora.com>"], mail()).recipients == ["small@crm.example"]


def test_oversize_is_refused_where_the_rule_says_so(lab):
    outcome = lab.send(JOE, ["<smaller@solarmora.com>"], mail(LINE * 20))
    assert outcome.sent.reply == (552, "5.3.4 message size exceeds limit for this recipient")
    mixed = lab.send(JOE, ["<smaller@solarmora.com>", "<alice@x.example>"], mail(LINE * 20))
    assert mixed.recipients == ["alice@x.example", "it@solarmora.com"]


def test_sizes_of_one_message_do_not_count_for_the_next(lab):
    with Session(lab.postfix.port) as session:
        for size, recipient in ((1000, "it@solarmora.com"), (1, "small@crm.example")):
            lab.sink.clear()
            session.transaction(JOE, ["<small@solarmora.com>"], mail(LINE * size))
            assert [each.recipient for each in lab.sink.wait(1)] == [recipient]


def test_dead_letters_are_the_sender_only_where_all_recipients_are_ours(lab):
    alone = lab.send(JOE, ["<sender@solarmora.com>"], mail())
    assert alone.of("sender@crm.example").sender == "bounces@solarmora.com"
    mixed = lab.send(JOE, ["<sender@solarmora.com>", "<alice@x.example>"], mail())
    assert {each.sender for each in mixed.received} == {"joe@customer.example"}
    everyone = ["alice@x.example", "bounces@solarmora.com", "sender@crm.example"]
    assert mixed.recipients == everyone
    null = lab.send(NULL, ["<sender@solarmora.com>"], mail())
    assert null.of("sender@crm.example").sender == ""
    assert null.recipients == everyone[1:]


def test_header_fields_are_added_only_where_all_recipients_are_ours(lab):
    data = lab.send(JOE, ["<Help@solarmora.com>"], mail()).of(CRM).data
    assert b"\r\nX-Gm-Original-To: help@solarmora.com\r\n" in data
    assert b"\r\nX-Gm-Spam: ham\r\n" in data
    assert b"\r\nX-Rule: outside\r\n" in data
    mixed = lab.send(JOE, ["<help@solarmora.com>", "<alice@x.example>"], mail())
    for each in mixed.received:
        assert b"X-Gm-" not in each.data
        assert b"X-CRM-Milter" not in each.data


def test_a_dkim_signature_survives_rerouting(lab):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    message = mail("signed\r\n", To="help@solarmora.com", Date="Sun, 22 Nov 2026 03:00:00 +0000")
    signature = dkim.sign(message, b"s", b"customer.example", private)
    sent = signature + message
    received = lab.send(JOE, ["<help@solarmora.com>"], sent).of(CRM).data
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    assert dkim.verify(sent, dnsfunc=lambda *_, **__: record)
    assert dkim.verify(received, dnsfunc=lambda *_, **__: record)
    assert not dkim.verify(received.replace(b"signed", b"forged"), dnsfunc=lambda *_, **__: record)
