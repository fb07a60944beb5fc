"""A table in SQLite under the running milter: a row counts at once, a broken file hurts its own."""

import signal
from pathlib import Path

import pytest
import routes
from mta import Mta

from lab.milter import Milter

HAM = [("X-Spam", "no")]
CONFIG = """
milter: {listen: LISTEN, workers: 4, socket_mode: "0666"}
unrouted_to: it@solarmora.com
spam: rspamd
rules:
  - {name: tenants, address_map: 'sqlite:tenants.db'}
  - {name: support, match: help@solarmora.com, replace_with: support@crm.example}
"""
ROWS = [("help@acme.example", "case-1@crm.example"), ("@shop.example", "shop@crm.example")]
LATER = "451 4.3.0 "


@pytest.fixture
def milter():
    made = Milter(CONFIG)
    routes.database(made.folder / "tenants.db", ROWS)
    with made:
        yield made


def send(milter, *recipients, times=1, port=4321):
    """Return the answers and targets; each time by another session."""
    found = set()
    for _ in range(times):
        with Mta(milter.address) as mta:
            mta.connect("localhost", "127.0.0.1", port)
            typed = [f"<{each}>" if port else each for each in recipients]
            result = mta.message(typed, HAM, "<joe@x.example>" if port else "joe@x.example")
            answer = "451" if result.answer.startswith(LATER) else "ok"
            found.add((answer, *(edit[0].strip("<>") for edit in result.of("add"))))
    return found


def test_a_row_counts_at_the_next_message_for_all_workers(milter):
    path = milter.folder / "tenants.db"
    assert send(milter, "new@tenant.example", times=20) == {("ok",)}
    routes.add(path, "new@tenant.example", "new@crm.example")
    assert send(milter, "new@tenant.example", times=20) == {("ok", "new@crm.example")}
    routes.execute(path, "UPDATE routes SET target = 'b@crm.example' WHERE address LIKE 'new%'")
    assert send(milter, "New@Tenant.example", times=20) == {("ok", "b@crm.example")}
    routes.execute(path, "DELETE FROM routes WHERE address LIKE 'new%'")
    assert send(milter, "new@tenant.example", times=20) == {("ok",)}


def missing(path: Path) -> None:
    path.unlink()


def corrupt(path: Path) -> None:
    path.write_bytes(b"\xff" * 9000)


def no_table(path: Path) -> None:
    routes.execute(path, "DROP TABLE routes")


@pytest.mark.parametrize("broken", [missing, corrupt, no_table, routes.locked])
def test_a_file_of_no_use_puts_off_mail_of_its_domains_only(milter, broken):
    path = milter.folder / "tenants.db"
    good = path.read_bytes()
    lock = broken(path)
    assert send(milter, "help@acme.example", times=4) == {("451",)}
    assert send(milter, "who@shop.example", times=4) == {("451",)}
    assert send(milter, "help@solarmora.com", times=4) == {("ok", "support@crm.example")}
    assert send(milter, "who@other.example", times=4) == {("ok",)}
    assert send(milter, "help@acme.example", port=0) == {("ok",)}  # from sendmail(1)
    said = milter.lines("error: ")
    assert said
    assert all(f'error: table "{path}": ' in line for line in said)
    assert "mail for acme.example is put off" in said[0]
    assert not milter.lines("Traceback")
    if lock:
        lock.close()
    path.write_bytes(good)
    assert send(milter, "help@acme.example", times=8) == {("ok", "case-1@crm.example")}


def test_a_reload_with_a_broken_file_changes_nothing(milter):
    (milter.folder / "tenants.db").unlink()
    milter.signal(signal.SIGHUP)
    milter.wait_log("reload failed, keeping the previous rules")
    assert send(milter, "help@acme.example") == {("451",)}
    assert send(milter, "help@solarmora.com") == {("ok", "support@crm.example")}


def test_a_bad_target_is_left_and_said(milter):
    routes.add(milter.folder / "tenants.db", "bad@acme.example", "not an address")
    assert send(milter, "bad@acme.example") == {("ok",)}
    milter.wait_log(r'warning: table ".*": bad target of "bad@acme\.example": ')
    milter.wait_log(r"left: to=<bad@acme\.example> rule=tenants reason=no_target")


def test_a_target_that_comes_back_is_a_loop(milter):
    path = milter.folder / "tenants.db"
    routes.add(path, "round@acme.example", "help@acme.example")
    assert send(milter, "round@acme.example") == {("ok",)}
    milter.wait_log(r"left: to=<round@acme\.example> rule=tenants reason=loop")
