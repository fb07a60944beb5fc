"""Which program a milter is: by its name, by its own configuration, by its port."""

from pathlib import Path

import pytest

from crm_milter.postfix.scanners import program

# The file, its text, and how Postfix names the socket.
CONFIGURED = {
    "OpenDKIM": ("etc/opendkim.conf", "Socket inet:9001@localhost\n", "inet:localhost:9001"),
    "OpenDMARC": ("etc/opendmarc.conf", "Socket local:/run/x/d.sock\n", "unix:/run/x/d.sock"),
    "rspamd": (
        "etc/rspamd/local.d/worker-proxy.inc",
        'bind_socket = "127.0.0.1:9002";\n',
        "inet:127.0.0.1:9002",
    ),
    "SpamAssassin": (
        "etc/default/spamass-milter",
        'SOCKET="/var/spool/postfix/sa/s.sock"\n',
        "unix:sa/s.sock",
    ),
    "amavis": (
        "etc/amavis/conf.d/50-user",
        "$inet_socket_port = [9003, 9004];\n",
        "scan:[127.0.0.1]:9004",
    ),
    "clamav-milter": (
        "etc/clamav/clamav-milter.conf",
        "MilterSocket /run/c/m.ctl\n",
        "unix:/run/c/m.ctl",
    ),
}


@pytest.mark.parametrize("name", CONFIGURED)
def test_by_its_configuration(name, tmp_path):
    path, text, socket = CONFIGURED[name]
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    assert program(socket, tmp_path) is None
    file.write_text(f"# {text}")
    assert program(socket, tmp_path) is None
    file.write_text(text)
    found = program(socket, tmp_path)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("inet:127.0.0.1:11332", "rspamd"),
        ("smtp-amavis:[127.0.0.1]:10024", "amavis"),
        ("scan:[127.0.0.1]:10026", "amavis"),
        ("unix:/spamass/spamass.sock", "SpamAssassin"),
        ("spamassassin-dkim:", "SpamAssassin"),
        ("inet:localhost:12301", "OpenDKIM"),
        ("unix:private/opendmarc", "OpenDMARC"),
        ("inet:spamd-host:1234", "SpamAssassin"),
        ("unix:/run/mimedefang/mimedefang.sock", "MIMEDefang"),
        ("inet:127.0.0.1:113320", None),
        ("inet:127.0.0.1:9", None),
        ("unix:/run/notspamc2.sock", None),
        ("filter:", None),
        ("", None),
    ],
)
def test_by_its_name_or_port(text, name):
    found = program(text, Path("/nonexistent"))
    assert (found.name if found else None) == name
