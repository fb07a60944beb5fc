"""The keys of the sections ``milter`` and ``metrics``: how the service is reached, and watched."""

from crm_milter.config import build, listen, values
from crm_milter.config.kinds import Key, ListOf, table
from crm_milter.config.scalars import Integer, Text

MILTER = table(
    'a mapping with the keys of the milter ("listen", ...)',
    build.milter,
    Key(
        "listen",
        Text("a listener", listen.listener, "^(unix:.+|inet6?:[0-9]+@.+)$"),
        "unix:/var/spool/postfix/crm-milter/milter.sock",
        "socket on which the milter listens for Postfix",
    ),
    Key(
        "socket_mode",
        Text("permissions", values.socket_mode, "^(0o?[0-7]{3}|[67][0-7]0)$", number=True),
        "0660",
        "permissions of a Unix socket, in octal",
    ),
    Key(
        "socket_group",
        Text("a group", values.group, r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$"),
        "postfix",
        "group of a Unix socket",
    ),
    Key(
        "workers",
        Integer('a number from 1 to 64 or "auto"', 1, 64, word="auto"),
        "auto",
        "number of worker processes; auto: one per usable CPU, at most 4",
    ),
    Key(
        "drain_timeout",
        Text("a time", values.drain_timeout, "^[0-9]+ ?[smhd]?$", number=True),
        "60",
        "seconds allowed for open sessions to finish when the milter stops",
    ),
)

METRICS = table(
    'a mapping with "listen"',
    build.metrics,
    Key(
        "listen",
        Text('"HOST:PORT" or "none"', listen.exporter_address, "^(none|.+:[0-9]+)$"),
        "127.0.0.1:9894",
        "address of the metrics endpoint; none disables it",
    ),
    Key(
        "deliveries",
        ListOf(Text("a log", listen.delivery_log, "^(auto|journal|none|/.+)$"), least=1),
        "auto",
        "where Postfix logs: auto, journal, none, or files",
    ),
)
