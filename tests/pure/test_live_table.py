"""A table that is asked for each address: look-ups, a file of no use, what check says."""

import os
import sqlite3
import threading
import time

import pytest
import routes

from crm_milter.config.lint import live as lint
from crm_milter.config.load import ConfigError, load
from crm_milter.config.sources import Disk
from crm_milter.daemon import lastgood
from crm_milter.daemon.loading import Loader
from crm_milter.routing.headerfields import HeaderFields
from crm_milter.rules.conditions import Occasion
from crm_milter.rules.rule import TableError

HEAD = "spam: rspamd\nunrouted_to: it@solarmora.com\n"
TENANTS = "  - {name: tenants, address_map: 'sqlite:tenants.db'}\n"
ROWS = [
    ("help@acme.example", "case-1@crm.example"),
    ("Info@Acme.Example", "case-2@crm.example, archive@crm.example"),
    ("@shop.example", "shop@crm.example"),
    ("vip@shop.example", "vip@crm.example"),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "crm-milter.yaml").write_text(f"{HEAD}rules:\n{TENANTS}")
    routes.database(tmp_path / "tenants.db", ROWS)
    return tmp_path


def loaded(folder, text="", **options):
    if text:
        (folder / "crm-milter.yaml").write_text(HEAD + text)
    return load(folder / "crm-milter.yaml", Disk(**options)).policy.table


def targets(table, address, **occasion):
    match = table.match(address, Occasion(**occasion), address)
    return match and match.targets()


@pytest.mark.parametrize("mode", ["", "WAL", "TRUNCATE"])
@pytest.mark.parametrize("schema", [routes.PLAIN, routes.UNIQUE])
@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("help@acme.example", ("case-1@crm.example",)),
        ("info@acme.example", ("case-2@crm.example", "archive@crm.example")),
        ("vip@shop.example", ("vip@crm.example",)),
        ("any.one@shop.example", ("shop@crm.example",)),
        ("postmaster@shop.example", None),  # wildcards spare it
        ("nobody@acme.example", None),
        ("help@acme.example.org", None),
        ("help", None),
        ("", None),
        ("help\udcff@acme.example", None),
        ("' or 1=1 --@acme.example", None),
        ("help%@acme.example", None),
    ],
)
def test_look_ups_are_those_of_a_file(folder, mode, schema, address, wanted):
    (folder / "tenants.db").unlink()
    routes.database(folder / "tenants.db", ROWS, schema, mode)
    (folder / "table").write_text("".join(f"{key} {value}\n" for key, value in ROWS))
    table = loaded(folder)
    assert targets(table, address) == wanted
    file = loaded(folder, "rules:\n  - {name: tenants, address_map: table}\n")
    assert targets(file, address) == wanted


def test_the_address_with_its_extension_comes_before_that_without_and_that_before_the_domain(
    folder,
):
    text = f"recipient_delimiter: +\nrules:\n{TENANTS}"
    table = loaded(folder, text)
    assert targets(table, "help+x@acme.example") == ("case-1@crm.example",)
    assert targets(table, "vip+x@shop.example") == ("vip@crm.example",)
    routes.add(folder / "tenants.db", "help+x@acme.example", "x@crm.example")
    assert targets(table, "help+x@acme.example") == ("x@crm.example",)


@pytest.mark.parametrize("spelling", ["info@grüße.example", "info@xn--gre-6ka8l.example"])
def test_a_domain_in_either_spelling(folder, spelling):
    routes.add(folder / "tenants.db", spelling, "g@crm.example")
    assert targets(loaded(folder), "info@xn--gre-6ka8l.example") == ("g@crm.example",)


def test_several_rows_of_one_address_are_several_targets(folder):
    (folder / "tenants.db").unlink()
    rows = [("a@acme.example", "x@crm.example"), ("a@acme.example", "y@crm.example")]
    routes.database(folder / "tenants.db", rows, routes.PLAIN)
    assert targets(loaded(folder), "a@acme.example") == ("x@crm.example", "y@crm.example")


def test_a_view_is_as_good_as_a_table(folder):
    path = folder / "tenants.db"
    routes.execute(path, "ALTER TABLE routes RENAME TO tenants")
    routes.execute(path, "CREATE VIEW routes AS SELECT address, target FROM tenants")
    assert targets(loaded(folder), "help@acme.example") == ("case-1@crm.example",)


@pytest.mark.parametrize("mode", ["", "WAL"])
def test_a_row_counts_at_once_added_changed_or_removed(folder, mode):
    path = folder / "tenants.db"
    path.unlink()
    routes.database(path, ROWS, mode=mode or "DELETE")
    table = loaded(folder)
    assert targets(table, "new@tenant.example") is None
    routes.add(path, "new@tenant.example", "new@crm.example")
    assert targets(table, "new@tenant.example") == ("new@crm.example",)
    routes.execute(path, "UPDATE routes SET target = 'other@crm.example' WHERE address LIKE 'new%'")
    assert targets(table, "new@tenant.example") == ("other@crm.example",)
    routes.execute(path, "DELETE FROM routes WHERE address LIKE 'new%'")
    assert targets(table, "new@tenant.example") is None


def test_a_file_that_is_replaced_is_the_one_that_counts(folder):
    table = loaded(folder)
    assert targets(table, "help@acme.example") == ("case-1@crm.example",)
    routes.database(folder / "new.db", [("help@acme.example", "case-9@crm.example")])
    (folder / "new.db").rename(folder / "tenants.db")
    assert targets(table, "help@acme.example") == ("case-9@crm.example",)
    # Overwritten in place, as cp does: the pages that SQLite remembers are others.
    routes.database(folder / "new.db", [("help@acme.example", "case-8@crm.example")])
    (folder / "tenants.db").write_bytes((folder / "new.db").read_bytes())
    os.utime(folder / "tenants.db")
    assert targets(table, "help@acme.example") == ("case-8@crm.example",)


BAD_TARGETS = [
    *(
        "",
        None,
        "nonsense",
        "@crm.example",
        "a@b@c",
        "<a@crm.example>",
        7,
        b"\xff\xfe",
        "#a@x.example",
    ),
    *("a@crm.example, junk", "x" * 5000, "a@crm.example\nb", "postmaster", "a@", ",", "'; DROP--"),
]


@pytest.mark.parametrize("target", BAD_TARGETS, ids=repr)
def test_a_target_that_is_no_address_is_no_target_and_said(folder, target):
    (folder / "tenants.db").unlink()
    routes.database(folder / "tenants.db", [("help@acme.example", target)], routes.PLAIN)
    table, said = loaded(folder), []
    table.live()[0].report_to(said.append)
    match = table.match("help@acme.example")
    assert match.rule.name == "tenants"
    assert match.targets() is None
    (line,) = said
    assert line.startswith(
        f'warning: table "{folder}/tenants.db": bad target of "help@acme.example"'
    )
    assert line.isprintable()
    assert len(line) < 1000
    assert any("no_target" in each.message for each in lint.warnings(table))


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"case-1@crm.example", ("case-1@crm.example",)),
        (b" a@crm.example,b@crm.example\n", ("a@crm.example", "b@crm.example")),
        ("\u00fc@crm.example".encode(), ("\u00fc@crm.example",)),
    ],
)
def test_text_that_was_written_as_a_blob_is_text(folder, target, wanted):
    (folder / "tenants.db").unlink()
    routes.database(folder / "tenants.db", [("help@acme.example", target)], routes.PLAIN)
    table = loaded(folder)
    assert targets(table, "help@acme.example") == wanted
    assert not [each for each in lint.warnings(table) if "no_target" in each.message]


def missing(path):
    path.unlink()


def corrupt(path):
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4000)


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("help@acme.example x@crm.example\n" * 50)


def a_folder(path):
    path.unlink()
    path.mkdir()


def other_table(path):
    routes.execute(path, "ALTER TABLE routes RENAME TO others")


def other_columns(path):
    routes.execute(path, "ALTER TABLE routes RENAME COLUMN target TO goal")


def truncated(path):
    path.write_bytes(path.read_bytes()[:4096])


BROKEN = [missing, corrupt, empty, text, a_folder, other_table, other_columns, truncated]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_file_of_no_use_concerns_its_domains_only_and_is_used_again_once_it_is_good(
    folder, broken
):
    path = folder / "tenants.db"
    good = path.read_bytes()
    table = loaded(folder)
    broken(path)
    for address in ("help@acme.example", "nobody@acme.example", "x@shop.example"):
        with pytest.raises(TableError, match=f'"{path}": .+; mail for .* is put off'):
            table.match(address)
    for address in ("help@other.example", "x@sub.acme.example", "help", ""):
        assert table.match(address) is None
    if path.is_dir():
        path.rmdir()
    path.write_bytes(good)
    assert targets(table, "help@acme.example") == ("case-1@crm.example",)


def test_a_lock_is_waited_for_and_then_concerns_the_domains_only(folder):
    table = loaded(folder)
    lock = routes.locked(folder / "tenants.db")
    began = time.monotonic()
    assert table.match("help@other.example") is None
    assert time.monotonic() - began < 1
    with pytest.raises(TableError, match="database is locked"):
        table.match("help@acme.example")
    assert 1.5 < time.monotonic() - began < 10
    again = time.monotonic()
    for number in range(50):  # the next ones wait no more
        with pytest.raises(TableError):
            table.match(f"{number}@acme.example")
    assert time.monotonic() - again < 3
    lock.close()
    assert targets(table, "help@acme.example") == ("case-1@crm.example",)


def test_a_short_lock_delays_and_no_more(folder):
    table = loaded(folder)
    held = threading.Event()

    def hold():
        lock = routes.locked(folder / "tenants.db")
        held.set()
        time.sleep(0.4)
        lock.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert targets(table, "help@acme.example") == ("case-1@crm.example",)
    thread.join()


def test_a_look_up_that_reads_for_long_is_given_up(folder):
    path = folder / "tenants.db"
    table = loaded(folder)
    routes.execute(path, "ALTER TABLE routes RENAME TO t")
    routes.execute(
        path,
        "CREATE VIEW routes AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT i || '@acme.example' AS address, 'x@crm.example' AS target FROM n",
    )
    began = time.monotonic()
    with pytest.raises(TableError, match="took too long"):
        table.match("help@acme.example")
    assert time.monotonic() - began < 10


def test_many_threads_at_once(folder):
    table, wrong = loaded(folder), []

    def ask():
        found = {targets(table, "help@acme.example") for _ in range(300)}
        wrong.extend(found - {("case-1@crm.example",)})

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for each in threads:
        each.start()
    for number in range(20):
        routes.add(folder / "tenants.db", f"n{number}@acme.example", "n@crm.example")
    for each in threads:
        each.join()
    assert not wrong


def test_rules_before_a_broken_table_apply_and_test_rules_change_nothing(folder):
    first = "  - {name: first, match: help@acme.example, replace_with: first@crm.example}\n"
    last = "  - {name: last, match: '@acme.example', replace_with: last@crm.example}\n"
    table = loaded(folder, f"rules:\n{first}{TENANTS}{last}")
    missing(folder / "tenants.db")
    assert targets(table, "help@acme.example") == ("first@crm.example",)
    with pytest.raises(TableError):
        table.match("info@acme.example")
    assert table.reroutes("x@acme.example")


def test_whether_a_target_leads_on_is_not_known_of_a_broken_table(folder):
    table = loaded(folder)
    assert table.reroutes("help@acme.example")
    assert not table.reroutes("x@acme.example")
    missing(folder / "tenants.db")
    with pytest.raises(TableError):
        table.reroutes("x@acme.example")
    assert not table.reroutes("x@crm.example")


@pytest.mark.parametrize("more", ["mode: test", "senders: joe@x.example"])
def test_a_broken_table_of_a_rule_that_does_not_apply(folder, more):
    rule = TENANTS.replace("}", f", {more}}}")
    last = "  - {name: last, match: '@acme.example', replace_with: last@crm.example}\n"
    table = loaded(folder, f"rules:\n{rule}{last}")
    missing(folder / "tenants.db")
    assert targets(table, "help@acme.example", sender="ann@x.example") == ("last@crm.example",)


def test_new_domains_are_learnt_by_mail_and_by_looking(folder):
    path = folder / "tenants.db"
    table = loaded(folder)
    (live,) = table.live()
    routes.add(path, "a@by-mail.example", "a@crm.example")
    assert targets(table, "a@by-mail.example")
    routes.add(path, "a@by-look.example", "a@crm.example")
    live.look(time.monotonic())
    missing(path)
    for domain in ("by-mail.example", "by-look.example"):
        with pytest.raises(TableError):
            table.match(f"b@{domain}")
    assert table.match("b@by-nothing.example") is None


def test_domains_that_the_file_lists_itself(folder):
    path = folder / "tenants.db"
    routes.execute(path, "CREATE TABLE domains (domain TEXT)")
    routes.execute(path, "INSERT INTO domains VALUES ('Acme.example'), ('later.example')")
    table = loaded(folder)
    missing(path)
    for domain in ("acme.example", "later.example"):
        with pytest.raises(TableError):
            table.match(f"b@{domain}")
    assert table.match("b@shop.example") is None


# The configuration


@pytest.mark.parametrize("broken", BROKEN)
def test_a_file_of_no_use_is_refused_by_check(folder, broken):
    broken(folder / "tenants.db")
    with pytest.raises(ConfigError) as caught:
        loaded(folder)
    assert 'rules[0].address_map: "tenants.db": ' in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("broken", [missing, corrupt, other_table])
def test_a_daemon_that_starts_knows_the_domains_that_the_table_had(folder, broken):
    state = folder / "state"
    state.mkdir()
    loader = Loader(folder / "crm-milter.yaml", lastgood.Store(state), lambda _line: None)
    loader.keep(loader.at_start())
    broken(folder / "tenants.db")
    said = []
    for _ in range(2):  # it is kept again and again
        loader = Loader(folder / "crm-milter.yaml", lastgood.Store(state), said.append)
        loaded = loader.at_start()
        assert not loaded.is_last_good
        loader.keep(loaded)
        table = loaded.config.policy.table
        with pytest.raises(TableError):
            table.match("help@acme.example")
        assert table.match("help@other.example") is None
    assert any("mail for its domains is answered with 451 meanwhile" in line for line in said)


def test_the_last_good_configuration_asks_the_table_as_well(folder):
    state = folder / "state"
    state.mkdir()
    loader = Loader(folder / "crm-milter.yaml", lastgood.Store(state), lambda _line: None)
    loader.keep(loader.at_start())
    (folder / "crm-milter.yaml").write_text("nonsense")
    loaded = loader.at_start()
    assert loaded.is_last_good
    routes.add(folder / "tenants.db", "new@acme.example", "new@crm.example")
    assert targets(loaded.config.policy.table, "new@acme.example") == ("new@crm.example",)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("x@loop.example", "help@acme.example"), "(a loop)"),
        (("x@loop.example", "who@shop.example"), "(a loop)"),
        (("x@loop.example", "open@solarmora.com"), "(a loop)"),
        (("Ünï@acme.example", "x@crm.example"), 'never matches; write "ünï@acme.example"'),
        (("<x@acme.example>", "x@crm.example"), "angle brackets"),
        (("case-*@acme.example", "x@crm.example"), "is not supported"),
        (("nonsense", "x@crm.example"), "never matches"),
        ((" x@acme.example", "x@crm.example"), "never matches"),
        (("x@acme.example", "y"), "(no_target)"),
    ],
)
def test_what_check_says_of_rows(folder, row, words):
    other = "  - {name: o, match: open@solarmora.com, replace_with: o@crm.example}\n"
    text = f"rules:\n{TENANTS}{other}"
    table = loaded(folder, text)
    assert list(lint.warnings(table)) == []
    routes.add(folder / "tenants.db", *row)
    (problem,) = lint.warnings(table)
    assert words in problem.message
    assert problem.file == str(folder / "tenants.db")


def test_what_check_says_of_the_table(folder):
    (folder / "tenants.db").unlink()
    routes.database(folder / "tenants.db", schema=routes.PLAIN)
    messages = [each.message for each in lint.warnings(loaded(folder))]
    assert len(messages) == 2
    assert "CREATE INDEX routes_address" in messages[0]
    assert messages[1] == 'the table "routes" has no rows'
    routes.execute(folder / "tenants.db", messages[0].partition("run: ")[2])
    assert len(list(lint.warnings(loaded(folder)))) == 1


def test_no_row_is_kept_in_memory(folder):
    rows = [(f"u{n}@t{n % 10}.example", f"c{n}@crm.example") for n in range(20_000)]
    path = folder / "tenants.db"
    path.unlink()
    routes.database(path, rows)
    table = loaded(folder)
    assert targets(table, "u7@t7.example") == ("c7@crm.example",)
    assert len(table.live()[0].domains) == 10


def test_many_domains_are_kept_as_numbers(folder):
    routes.execute(folder / "tenants.db", "CREATE TABLE domains (domain TEXT)")
    with sqlite3.connect(folder / "tenants.db") as connection:
        names = ((f"d{n}.example",) for n in range(50_000))
        connection.executemany("INSERT INTO domains VALUES (?)", names)
    connection.close()
    domains = loaded(folder).live()[0].domains
    assert all(f"d{n}.example" in domains for n in range(0, 50_000, 7))
    assert not any(f"e{n}.example" in domains for n in range(5000))


@pytest.mark.parametrize("value", ["sqlite:", "sqlite: ", "sqlite:nowhere.db", "sqlite:/"])
def test_values_that_are_no_table(folder, value):
    with pytest.raises(ConfigError):
        loaded(folder, f"rules:\n  - {{name: t, address_map: '{value}'}}\n")


def test_a_broken_table_of_a_rule_that_waits_for_the_header(folder):
    rule = TENANTS.replace("}", ", headers: {Subject: '*invoice*'}}")
    last = "  - {name: last, match: '@acme.example', replace_with: last@crm.example}\n"
    table = loaded(folder, f"rules:\n{rule}{last}")
    missing(folder / "tenants.db")
    assert table.is_waiting(table.match("help@acme.example"))
    header = HeaderFields()
    header.add("subject", "an invoice")
    with pytest.raises(TableError):
        table.match("help@acme.example", Occasion(header=header))
    assert table.match("help@acme.example", Occasion(header=HeaderFields())).rule.name == "last"


def test_a_fifo_is_not_waited_for(folder):
    table = loaded(folder)
    (folder / "tenants.db").unlink()
    os.mkfifo(folder / "tenants.db")
    with pytest.raises(TableError, match="is not a regular file"):
        targets(table, "help@acme.example")
    assert targets(table, "help@other.example") is None
    with pytest.raises(ConfigError, match="is not a regular file"):
        loaded(folder)
