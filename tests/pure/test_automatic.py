"""Which class of automatic mail a message belongs to, and that people's mail belongs to none."""

import pytest
from automatic_mail import (
    BOUNCE,
    BOUNCES,
    BULK,
    LIST,
    LISTS,
    MASS,
    PEOPLE,
    REPLIES,
    REPLY,
    A,
    C,
    F,
    L,
    P,
)
from rows import CRM, HELP, fates, policy, rule, run

from crm_milter.routing.automatic import FIELDS
from crm_milter.routing.decision import Action, Reason
from crm_milter.rules.rule import AutomaticClass


def classes(fields, sender="joe@customer.example"):
    """The classes for which a rule that leaves only this one leaves the message."""
    found = set()
    for each in AutomaticClass:
        rules = policy(rule("r", "help@solarmora.com", CRM, automatic=frozenset({each})))
        wanted = [field for field in fields if field[0] in rules.wanted_fields]
        (fate,) = fates(run(rules, "<help@solarmora.com>", sender=sender, fields=wanted))
        assert fate in ((Action.LEFT, Reason.AUTOMATIC), (Action.REROUTED, None))
        if fate[0] is Action.LEFT:
            found.add(each)
    return found


TABLE = [
    pytest.param(kind, fields, id=f"{kind.value}-{program}")
    for kind, programs in zip(AutomaticClass, (REPLIES, BOUNCES, MASS, LISTS), strict=True)
    for program, fields in programs.items()
]


@pytest.mark.parametrize(("kind", "fields"), TABLE)
def test_each_class_as_programs_write_it(kind, fields):
    sender = "" if kind is BOUNCE else "joe@customer.example"
    assert kind in classes(fields, sender)


@pytest.mark.parametrize("fields", BOUNCES.values(), ids=BOUNCES)
def test_a_bounce_with_another_sender_is_known_by_its_header(fields):
    says = any(name in (C, F) and "mixed" not in value for name, value in fields)
    assert (BOUNCE in classes(fields)) is says


def test_there_are_twenty_of_each_class():
    assert [len(each) for each in (REPLIES, BOUNCES, MASS, LISTS)] == [20] * 4


@pytest.mark.parametrize("field", PEOPLE)
def test_what_people_send_is_not_automatic(field):
    assert classes([field]) == set()


def test_the_null_sender_is_a_bounce_and_nothing_else():
    assert classes([], sender="") == {BOUNCE}


def test_the_fields_are_wanted_only_where_a_rule_asks():
    leaving = rule("r", "help@solarmora.com", CRM, automatic=frozenset({LIST}))
    assert policy(leaving).wanted_fields >= FIELDS
    assert not policy(HELP).wanted_fields & FIELDS


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ([(A, "no"), (A, "auto-replied")], {REPLY}),
        ([(A, "auto-replied"), (A, "no")], {REPLY}),
        ([(P, "bulk"), (P, "list"), (P, "auto_reply")], {REPLY, BULK, LIST}),
        ([(P, "Auto-Reply")], {REPLY}),
        ([(A, "((no)) auto-generated")], {REPLY}),
        ([(A, "(" * 5000 + "auto-replied")], set()),
        ([(A, '"no"')], set()),
        ([(A, "\udcff\udcfe")], {REPLY}),
        ([(P, "bulk;")], {BULK}),
        ([(P, "bulk\\")], set()),
        ([(C, 'multipart/report; report-type="delivery\\-status"')], {BOUNCE}),
        ([(C, "multipart/report; report-type*0=delivery-status")], {BOUNCE}),
        ([(C, ";;;=;report-type=delivery-status")], set()),
        ([(C, "multipart / report; report-type=delivery-status")], {BOUNCE}),
        ([(F, "a@b.example"), (L, "<x>")], {BOUNCE, LIST}),
        ([("x-autorespond", "No parking")], {REPLY}),
        ([("x-autorespond", "No")], set()),
        ([("x-autorespond", '(really) "NO"')], set()),
        ([("x-autoreply", "no; reason=x")], {REPLY}),
        ([("x-autoreply", "")], {REPLY}),
        ([(A, "no, thanks")], {REPLY}),
        ([(A, "(auto-replied) no (thanks)")], set()),
        ([(A, "no-one")], {REPLY}),
        ([(P, "bulk, list")], {BULK, LIST}),
        ([(P, "list,bulk")], {BULK, LIST}),
        ([(P, "(a, list) junk")], {BULK}),
        ([(P, "first-class, bulk")], {BULK}),
        ([(P, '"bulk"')], {BULK}),
        ([(P, "no bulk")], set()),
        ([(P, ",,,")], set()),
        ([(C, "multipart/report; report-type*0=delivery-; report-type*1=status")], {BOUNCE}),
        ([(C, 'multipart/report; report-type*1="status"; report-type*0="delivery-"')], {BOUNCE}),
        (
            [(C, "multipart/report; Report-Type*0*=utf-8'en'delivery%2D; report-type*1*=status")],
            {BOUNCE},
        ),
        ([(C, "multipart/report; report-type*=utf-8''delivery%2dstatus")], {BOUNCE}),
        ([(C, "multipart/report; report-type*0=disposition-; report-type*1=notification")], set()),
        (
            [(C, "multipart/report (x); boundary=a; (b) report-type (c) = (d) delivery-status")],
            {BOUNCE},
        ),
        ([(C, "multipart/report; report-type*=; report-type*x=delivery-status")], {BOUNCE}),
    ],
)
def test_odd_values(fields, found):
    assert classes(fields) == found
