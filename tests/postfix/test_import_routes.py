"""import: the rules that it prints lead every address where the old tables of Postfix led it."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from lab.whole import Lab

MESSAGE = b"From: joe@client.example\r\nSubject: x\r\n\r\nhello\r\n"
IT = "it@solarmora.com"
TABLE = f"""
# Aliases of solarmora.com
help@solarmora.com    support@id.1abc.na1.case.salesforce.com, team@solarmora.com
Support@SolarMora.com
    help@solarmora.com
# A comment does not end an entry:
    boss@mail.example
sales@solarmora.com   leads@acme.zendesk.com leads2@acme.zendesk.com
both@solarmora.com    both@solarmora.com, tickets@acme.zendesk.com
"john doe"@solarmora.com  john@acme.zendesk.com
team@solarmora.com    anna@mail.example, bob@mail.example
loop@solarmora.com    loop2@solarmora.com
loop2@solarmora.com   loop@solarmora.com
{IT}  it@mail.example
@shop.example         shop@acme.zendesk.com
bob@shop.example      bob@mail.example
carl@shop.example     help@solarmora.com
via@solarmora.com     whoever@shop.example
@www.example          @shop.example
web@www.example       web@mail.example
user@solarmora.com    @shop.example
help@solarmora.com    second@acme.zendesk.com
@mail2.example        all@mail.example
in@mail2.example      in@acme.zendesk.com
"""
ADDRESSES = [
    *(
        f"{each}@solarmora.com"
        for each in ["help", "support", "sales", "both", "team", "loop", "it", "via", "user"]
    ),
    '"john doe"@solarmora.com',
    *(f"{each}@shop.example" for each in ("bob", "carl", "new", "other")),
    *(f"{each}@www.example" for each in ("bob", "carl", "new", "web")),
    *(f"{each}@mail2.example" for each in ("in", "new")),
    "anna@mail.example",
]


def random_table(seed: int) -> tuple[str, list[str]]:
    """Chains, several targets, catch-alls and alias domains, at random; and what to send to."""
    dice = random.Random(seed)
    users = [f"u{n}@d{n % 3}.example" for n in range(14)]
    others = ["x@mail.example", "y@mail.example", "a@acme.zendesk.com", "b@acme.zendesk.com"]
    others += ["c@site.atlassian.net"]
    lines = []
    for n, user in enumerate(users):
        # Chains lead on to later ones, so that none is a circle.
        targets = dice.sample([*users[n + 1 :], *others], dice.randint(1, 2))
        if dice.random() < 0.2:
            targets.append(user)
        lines.append(f"{user}  {', '.join(targets)}")
    lines.append(f"@d0.example  {dice.choice(others)}")
    lines.append("@d3.example  @d0.example")
    dice.shuffle(lines)
    lines.append(f"{IT}  it@mail.example")
    asked = [*users, "new@d0.example", "new@d3.example", "u0@d3.example", "u3@d3.example"]
    return "\n".join([*lines, ""]), asked


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crm_milter.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def without(table: str, done: str) -> str:
    """Return the table as the printed comments say: entries removed, and lines added."""
    removed = {int(line.split()[2].rstrip(":")) for line in done.splitlines() if "  line " in line}
    lines, is_removed = [], False
    for number, line in enumerate(table.splitlines(), 1):
        if line[:1] not in ("", " ", "#"):
            is_removed = number in removed
        if not is_removed:
            lines.append(line)
    _, _, added = done.partition("# Add there")
    return "\n".join([*lines, *(line[4:] for line in added.splitlines()[1:]), ""])


def deliveries(lab: Lab, asked: list[str]) -> dict[str, list[str]]:
    return {
        each: sorted(set(lab.send("<joe@client.example>", [f"<{each}>"], MESSAGE).recipients))
        for each in asked
    }


@pytest.mark.parametrize(
    ("table", "asked"),
    [(TABLE, ADDRESSES), *map(random_table, (1, 2, 3))],
    ids=["by hand", "random 1", "random 2", "random 3"],
)
def test_the_same_recipients_get_the_mail(make_lab, tmp_path, table, asked):
    old = tmp_path / "virtual"
    old.write_text(table)
    done = run("import", old, "--unrouted-to", IT, "--write", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    config = tmp_path / "imported.yaml"
    text = config.read_text()
    for name in ("imported-addresses", "imported-accounts"):
        text = text.replace(f": {name}", f": {tmp_path / name}")
    config.write_text(text)
    assert run("check", "--config", config).returncode == 0
    mapped = run("map", "--config", config)
    assert mapped.returncode == 0
    kept = without(table, done.stdout)
    tables = {"before": table, "kept": kept, "crm-milter-aliases": mapped.stdout}
    tmp_path.chmod(0o755)
    (tmp_path / "main.cf").touch()
    for name, lines in tables.items():
        (tmp_path / name).write_text(lines)
        command = ["postmap", "-c", str(tmp_path), f"hash:{tmp_path / name}"]
        subprocess.run(command, check=True, capture_output=True)
    before = f"hash:{tmp_path}/before"
    after = f"hash:{tmp_path}/kept, hash:{tmp_path}/crm-milter-aliases"
    old_way = deliveries(make_lab(main={"virtual_alias_maps": before}), asked)
    new_way = deliveries(make_lab(text, main={"virtual_alias_maps": after}), asked)
    assert new_way == old_way
    assert sum(map(bool, old_way.values())) > len(asked) // 2
    # And it is the milter that leads there: the tables alone do not.
    assert not any(crm in kept for crm in ("salesforce.com", "zendesk.com", "atlassian.net"))
