"""detach finds crm-milter wherever it was configured, by whom and in which instance ever."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from attaching import Site, attach, attachable, main_cf
from planted import HELP, IT

from crm_milter.postfix import instances

DKIM = "inet:127.0.0.1:9"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with attachable(main={"mydestination": "solarmora.com"}) as site:
        yield site


def by_hand(site: Site, main: str = "", master: str = "") -> None:
    """Write lines with OURS, QUEUE, PORT in them into the configuration."""
    words = {
        "OURS": f"unix:{site.milter.socket}",
        "QUEUE": str(site.postfix.folder / "queue"),
        "SOCKET": str(site.milter.socket),
        "MAPS": str(site.postfix.folder),
    }
    for word, text in words.items():
        main, master = main.replace(word, text), master.replace(word, text)
    site.restore(main=main)
    path = site.postfix.config / "master.cf"
    path.write_text(path.read_text() + master)
    site.age()


def left(site: Site) -> str:
    return "".join(
        line
        for name in ("main.cf", "master.cf")
        for line in site.texts()[name].decode().splitlines(keepends=True)
        if "milter" in line
    ).replace(str(site.milter.folder), "FOLDER")


@pytest.mark.parametrize(
    ("main", "master", "kept"),
    [
        ("smtpd_milters = OURS\nnon_smtpd_milters = $smtpd_milters\n", "", ["= $smtpd_milters"]),
        (f"smtpd_milters = {DKIM}, OURS\nmilter_default_action = accept\n", "", [DKIM]),
        (f"smtpd_milters = {DKIM} {{ OURS, default_action=accept }}\n", "", [f"= {DKIM}\n"]),
        ("smtpd_milters =\n  { OURS,\n    command_timeout = 5s }\n", "", []),
        (f"crm = OURS\nsmtpd_milters = {DKIM}, $crm\n", "", [f"{DKIM}, $crm"]),
        (f"both = {DKIM}, OURS\nsmtpd_milters = ${{both}}\n", "", ["${both}"]),
        (f"place = SOCKET\nsmtpd_milters = {DKIM}, unix:$place\n", "", [f"= {DKIM}\n"]),
        (
            f"crm = {{ OURS, default_action=accept }}\nall = {DKIM}, $crm\n"
            "smtpd_milters = $(all)\n",
            "",
            ["$(all)"],
        ),
        ("", "9 inet n - n - - smtpd\n  -o smtpd_milters=OURS\n", ["-o smtpd_milters=\n"]),
        (
            "",
            f"9 inet n - n - - smtpd\n  -o {{ smtpd_milters = {DKIM}, OURS }}\n  -o a=b\n",
            [f"-o {{ smtpd_milters = {DKIM} }}\n"],
        ),
        ("", "own unix n - n - 0 cleanup -o non_smtpd_milters={OURS,a=b},x:y\n", ["=x:y"]),
        ("smtpd_milter_maps = static:OURS\n", "", ["smtpd_milter_maps ="]),
    ],
)
def test_what_was_configured_by_hand_is_found(site, main, master, kept):
    by_hand(site, main, master)
    done = site.run("detach", "--yes")
    assert done.returncode == 0, done
    assert done.stdout.endswith("detached\n")
    assert "FOLDER" not in left(site).replace("place = FOLDER", ""), left(site)
    for each in kept:
        assert each in left(site)
    assert site.run("detach", "--yes").stdout.startswith("nothing to detach")


def test_the_tables_of_smtpd_milter_maps_keep_their_other_entries(site):
    table = site.postfix.folder / "clients"
    by_hand(site, "smtpd_milter_maps = cidr:MAPS/clients\n")
    table.write_text(
        f"# clients\n192.0.2.1  DISABLE\n192.0.2.2  unix:{site.milter.socket}\n"
        f"192.0.2.3  {DKIM}, {{ unix:{site.milter.socket}, default_action=accept }}\n"
    )
    assert site.run("detach", "--yes").returncode == 0
    assert table.read_text() == (
        f"# clients\n192.0.2.1  DISABLE\n192.0.2.2  DISABLE\n192.0.2.3  {DKIM}\n"
    )


def test_what_cannot_be_changed_is_named(site):
    by_hand(site, "smtpd_milter_maps = inline:{ {192.0.2.1 = OURS} }\n")
    done = site.run("detach", "--yes")
    assert done.returncode == 1
    assert "by hand from smtpd_milter_maps, in inline:" in done.stdout
    assert f"unix:{site.milter.socket}" in done.stdout


def test_a_relative_path_starts_at_the_queue_directory(site):
    link = site.postfix.folder / "queue" / "ours"
    link.mkdir(exist_ok=True)
    (link / "milter.sock").unlink(missing_ok=True)
    (link / "milter.sock").symlink_to(site.milter.socket)
    by_hand(site, "smtpd_milters = unix:ours/milter.sock\n")
    assert site.run("detach", "--yes").returncode == 0
    assert "ours/milter.sock" not in main_cf(site)


def test_a_configuration_with_errors_still_names_its_socket(site):
    by_hand(site, "smtpd_milters = OURS\n")
    site.yaml.write_text(site.yaml.read_text() + "unknown_key: 1\n")
    assert site.run("check").returncode == 78
    assert site.run("detach", "--yes").returncode == 0
    assert "FOLDER" not in left(site)


def test_the_table_of_aliases_stays_if_it_was_configured_by_hand(site):
    table = f"hash:{site.postfix.config}/crm-milter-aliases"
    by_hand(site, f"smtpd_milters = OURS\nvirtual_alias_maps = {table}\n")
    site.run("map", "--write")
    done = site.run("detach", "--yes")
    assert done.returncode == 0
    assert "stays: its addresses are accepted, for unrouted_to" in done.stdout
    assert site.arrives() == [IT]


def test_all_instances_are_detached(site, monkeypatch, tmp_path):
    by_hand(site, "smtpd_milters = OURS\n")
    monkeypatch.setenv("MAIL_CONFIG", str(site.postfix.config))
    others = [tmp_path / name for name in ("listed", "alternate", "remembered", "plain")]
    for each in others:
        shutil.copytree(site.postfix.config, each)
    text = others[3].joinpath("main.cf").read_text()
    others[3].joinpath("main.cf").write_text(text.replace(f"unix:{site.milter.socket}", ""))
    main = site.postfix.config / "main.cf"
    main.write_text(
        main.read_text()
        + f"multi_instance_directories = {others[0]} {others[3]} /nowhere\n"
        + f"alternate_config_directories = {others[1]}\n"
    )
    site.age()
    from crm_milter.postfix.postconf import Postconf

    instances.remember(Postconf(others[2]))
    assert (site.postfix.config / "crm-milter-instances").read_text() == f"{others[2]}\n"
    done = run_default(site, "detach", "--yes")
    assert done == 0
    for each in [site.postfix.config, *others]:
        assert str(site.milter.socket) not in (each / "main.cf").read_text(), each
    assert not (site.postfix.config / "crm-milter-instances").exists()


def run_default(site: Site, *words: str) -> int:
    from crm_milter.cli import main as cli

    return cli.main([*words, "--config", str(site.yaml)])


def test_a_host_without_a_postfix_has_nothing_to_detach(site, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MAIL_CONFIG", str(tmp_path))
    assert run_default(site, "detach", "--yes") == 0
    assert capsys.readouterr().out.startswith("nothing to detach")


def test_mail_can_be_accepted_while_the_milter_is_down(site):
    before = site.restore()
    assert attach(site).returncode == 0
    site.milter.stop()
    sent = site.lab.send("<a@customer.example>", [f"<{HELP}>"], b"Subject: x\n\nx\n").sent
    assert sent.reply.code == 451
    done = attach(site, "--when-down", "accept")
    assert done.returncode == 0, done
    assert "the milter is down: Postfix accepts mail without it" in done.stdout
    assert site.arrives() == [IT]
    assert site.run("attach", "--yes").returncode == 1  # it is still down
    site.milter.start()
    assert attach(site).returncode == 0
    assert site.run("detach", "--yes").returncode == 0
    assert site.texts() == before


def test_not_attached_and_down_is_refused_with_accept_too(site):
    before = site.restore()
    site.milter.stop()
    done = attach(site, "--when-down", "accept")
    assert done.returncode == 1
    assert "start crm-milter first" in done.stderr
    assert site.texts() == before


def test_strangers_are_not_offered_dsn_if_told_so(site):
    before = site.restore()
    done = attach(site)
    assert "attach --discard-dsn" in done.stdout
    assert attach(site, "--discard-dsn").returncode == 0
    assert "smtpd_discard_ehlo_keywords = dsn" in main_cf(site)
    assert attach(site, "--when-down", "accept").returncode == 0
    assert "smtpd_discard_ehlo_keywords = dsn" in main_cf(site)
    options = [f"<{HELP}> NOTIFY=SUCCESS"]
    assert site.lab.send("<a@customer.example> RET=HDRS", options, b"x\n").sent.reply.code == 501
    assert attach(site, "--no-discard-dsn").returncode == 0
    assert "smtpd_discard" not in main_cf(site)
    assert site.run("detach", "--yes").returncode == 0
    assert site.texts() == before


def test_the_package_needs_no_record_to_detach():
    script = Path(__file__).parents[2] / "debian" / "crm-milter.prerm"
    assert "crm-milter detach --yes" in script.read_text()
    assert "crm-milter-attached" not in script.read_text()
