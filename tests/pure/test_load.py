"""crm-milter load: a list into a table of routes, all of it or nothing."""

import re
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import routes

from crm_milter.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(folder, text, *options, encoding="utf-8"):
    (folder / "t.csv").write_bytes(text.encode(encoding))
    return main(["load", "t.csv", "t.db", *options])


def rows(folder):
    with closing(sqlite3.connect(folder / "t.db")) as connection:
        return sorted(connection.execute("SELECT address, target FROM routes"))


def many(count, target="x@crm.example"):
    return "".join(f"a{number}@x.example,{target}\n" for number in range(count))


@pytest.mark.parametrize(
    "text",
    [
        "a@x.example,b@crm.example\n",
        "address,target\na@x.example,b@crm.example\n",
        "\ufeffaddress,target\r\nA@X.Example,b@crm.example\r\n",
        '"a@x.example", "b@crm.example"\n\n  ,\n# a comment\n',
        "a@x.example;b@crm.example",
        "address\ttarget\na@x.example\tb@crm.example\n",
        "a@x.example,b@crm.example\nA@x.example,b@crm.example\n",
    ],
)
def test_spellings_of_a_list(folder, text):
    assert load(folder, text) == 0
    assert rows(folder) == [("a@x.example", "b@crm.example")]


def test_only_what_differs_is_written(folder, capsys):
    assert load(folder, many(9)) == 0
    before = (folder / "t.db").read_bytes()
    assert load(folder, many(9)) == 0
    assert (folder / "t.db").read_bytes() == before
    text = (
        many(8).replace("a3@x.example,x@", "a3@x.example,y@")
        + '@y.example,"a@z.example b@z.example"'
    )
    assert load(folder, text) == 0
    assert ("@y.example", "a@z.example, b@z.example") in rows(folder)
    assert capsys.readouterr().out.splitlines() == [
        "t.db: 9 rows: 9 added, 0 changed, 0 removed",
        "t.db: 9 rows: 0 added, 0 changed, 0 removed",
        "t.db: 9 rows: 1 added, 1 changed, 1 removed",
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense,b@crm.example", "nonsense"),
        ("c@x.example,nonsense", "nonsense"),
        ("c@x.example,", "missing target"),
        (",b@crm.example", "empty address"),
        ("c@x.example", "not 1 columns"),
        ("c@x.example,b@crm.example,c@crm.example", "not 3 columns"),
        ("*@x.example,b@crm.example", "is not supported in a table"),
        ("c@x.example,@crm.example", "must be a full address"),
        ("a@x.example,other@crm.example", "listed before with another target"),
        ("<c@x.example>,b@crm.example", "angle brackets"),
        ("c\u200b@x.example,b@crm.example", "t.csv:3: "),
        ("c@-.example,b@crm.example", "t.csv:3: "),
    ],
)
def test_a_bad_row_changes_nothing(folder, capsys, line, words):
    assert load(folder, "a@x.example,b@crm.example\n") == 0
    capsys.readouterr()
    text = (
        f"a@x.example,b@crm.example\nb@x.example,b@crm.example\n{line}\nd@x.example,d@crm.example\n"
    )
    assert load(folder, text) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("crm-milter: t.csv:3: ")
    assert words in said[0]
    assert said[1:] == ["crm-milter: t.db: not changed"]
    assert len(rows(folder)) == 1


def test_very_many_bad_rows_are_counted(folder, capsys):
    assert load(folder, "x,y\n" * 500) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 22
    assert "479 more errors not shown" in said[20]


def test_a_list_that_is_not_utf_8(folder, capsys):
    assert load(folder, "ä@x.example,b@crm.example\n", encoding="latin-1") == 1
    assert "not valid UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "status"), [(9, 6, 0), (9, 5, 1), (3, 0, 1), (0, 0, 1)]
)
def test_a_table_that_shrinks_by_more_than_a_third(folder, capsys, before, after, status):
    if before:
        assert load(folder, many(before)) == 0
    assert load(folder, many(after)) == status
    if status:
        assert "not changed: the " in capsys.readouterr().err
        assert load(folder, many(after), "--force") == 0
    assert len(rows(folder)) == after


@pytest.mark.parametrize(
    "after",
    [
        many(9).replace("@x.", "@y."),  # as many rows, other addresses
        many(99).replace("@x.", "@y."),
        many(5) + many(9).replace("@x.", "@y."),
        "".join(f"+a{number}@x.example,x@crm.example\n" for number in range(9)),
        "@x.example,x@crm.example\n",
    ],
)
def test_a_table_that_loses_more_than_a_third_of_its_addresses(folder, capsys, after):
    assert load(folder, many(9)) == 0
    before = rows(folder)
    capsys.readouterr()
    assert load(folder, after) == 1
    assert re.search(
        "not changed: the table would lose [459] of its 9 rows; use --force",
        capsys.readouterr().err,
    )
    assert rows(folder) == before
    assert load(folder, after, "--force") == 0


@pytest.mark.parametrize(
    "after",
    [
        many(9, "other@crm.example"),  # other targets are no loss
        many(9).upper().replace("CRM.EXAMPLE", "crm.example"),
        many(6) + many(9).replace("@x.", "@y."),
        many(999),
    ],
)
def test_a_table_that_keeps_its_addresses_is_loaded(folder, after):
    assert load(folder, many(9)) == 0
    assert load(folder, after) == 0


def test_a_table_of_another_maker_keeps_its_form(folder):
    statement = (
        "CREATE TABLE routes (id INTEGER PRIMARY KEY, address TEXT, target TEXT, since TEXT)"
    )
    with closing(sqlite3.connect(folder / "t.db")) as connection:
        connection.execute(statement)
        connection.execute("INSERT INTO routes VALUES (7, 'A0@X.example', 'x@crm.example', '2020')")
        connection.commit()
    assert load(folder, many(2)) == 0
    with closing(sqlite3.connect(folder / "t.db")) as connection:
        found = list(connection.execute("SELECT * FROM routes ORDER BY id"))
    assert found[0] == (7, "A0@X.example", "x@crm.example", "2020")
    assert found[1][1:3] == ("a1@x.example", "x@crm.example")


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_readers_see_all_of_it_or_nothing(folder, mode):
    routes.database(folder / "t.db", mode=mode)
    assert load(folder, many(3000, "old@crm.example")) == 0
    seen, stop = set(), threading.Event()

    def read():
        with closing(sqlite3.connect("file:t.db?mode=ro", uri=True, timeout=10)) as connection:
            while not stop.is_set():
                query = "SELECT count(*), min(target), max(target) FROM routes"
                seen.add(connection.execute(query).fetchone())

    thread = threading.Thread(target=read)
    thread.start()
    assert load(folder, many(4000, "new@crm.example")) == 0
    time.sleep(0.2)
    stop.set()
    thread.join()
    old, new = (3000, *["old@crm.example"] * 2), (4000, *["new@crm.example"] * 2)
    assert new in seen
    assert seen <= {old, new}


def test_a_new_file_is_not_for_everybody(folder):
    assert load(folder, many(1)) == 0
    assert (folder / "t.db").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("kind", ["folder", "text", "no folder"])
def test_a_file_that_cannot_be_written(folder, capsys, kind):
    (folder / "t.csv").write_text(many(1))
    names = {"folder": ".", "text": "text", "no folder": "nowhere/t.db"}
    (folder / "text").write_text("this is not a database\n" * 100)
    assert main(["load", "t.csv", names[kind]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"crm-milter: {names[kind]}: ")
    assert (folder / "text").read_text().startswith("this is not")


def test_a_list_that_is_not_there(folder, capsys):
    assert main(["load", "nowhere.csv", "t.db"]) == 1
    assert capsys.readouterr().err == "crm-milter: nowhere.csv: no such file or directory\n"
    assert not (folder / "t.db").exists()


def test_a_bad_list_makes_no_file(folder):
    assert load(folder, "a@x.example,nonsense\n") == 1
    assert load(folder, f"a@x.example,{'x' * 200_000}\n") == 1
    assert not (folder / "t.db").exists()


def test_what_the_page_shows_is_printed(folder, capsys):
    page = (Path(__file__).parents[2] / "docs/tables.md").read_text()
    shown = re.search(r"```\n(\$ cat tenants\.csv\n.*?)```", page, re.DOTALL)[1]
    steps = re.split(r"(?m)^\$ ", shown)[1:]
    (folder / "tenants.csv").write_text(steps[0].partition("\n")[2])
    for command, _, output in (each.partition("\n") for each in steps[1:]):
        assert main(command.split()[1:]) == 0
        assert capsys.readouterr().out == output


def test_a_quotation_mark_that_is_missing(folder, capsys):
    text = 'a@x.example,"b@crm.example\nc@x.example,d@crm.example\ne@x.example,f@crm.example\n'
    assert load(folder, text) == 1
    assert "is a quotation mark missing?" in capsys.readouterr().err
    assert not (folder / "t.db").exists()


def test_an_empty_list_makes_no_file(folder):
    assert load(folder, "") == 1
    assert not (folder / "t.db").exists()


@pytest.mark.parametrize("name", ["t\udcff.db", ":memory:", "file:t.db?mode=ro"])
def test_a_name_that_sqlite_has_other_uses_for(folder, name):
    (folder / "t.csv").write_text("a@x.example,b@crm.example\n")
    assert main(["load", "t.csv", name]) == 0
    (folder / name).rename(folder / "t.db")
    assert len(rows(folder)) == 1
