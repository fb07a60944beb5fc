"""Compares crm-milter with the C floor on the same load, and prints a table.

    python tests/bench/bench.py                       every row but the one through Postfix
    python tests/bench/bench.py --rows matching,p99   only these
    python tests/bench/bench.py --postfix             the rows through a private Postfix (root)

The floor (floor.c) is a minimal libmilter filter that makes the same edits. The load (load.c)
speaks as Postfix 3.7 does and checks every edit; a wrong one ends the benchmark with exit 1. Both
are built here, into a scratch folder, with cc.

Every row runs the candidates in turn, in an order that is reversed each round, so that what else
the machine does hits them alike. Shown are the median and, as "x floor", the median of the ratios
of the same round with its 95 % bootstrap interval. "cpu" is the processor time that the milter's
processes took for a message, which is steadier than the rate on a machine that is not idle.

Other candidates than the installed crm-milter: --ours NAME=COMMAND, as often as wanted; {config}
in the command is the configuration file, {listen} the socket as milter.listen has it, {workers}
the number of workers. To compare two versions:

    bench.py --ours 'old=/old/bin/crm-milter serve --config {config}' \\
             --ours 'new=/new/bin/crm-milter serve --config {config}'
"""

import argparse
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FLOOR = "floor"
OURS = "ours"
TICK = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A run that measures nothing; the message says why."""


# --- the processes ---


def build(folder: Path) -> None:
    """Compile floor and load into the folder."""
    for name, libraries in (("floor", ["-lmilter", "-lpthread"]), ("load", [])):
        source = HERE / f"{name}.c"
        command = ["cc", "-O2", "-Wall", "-o", str(folder / name), str(source), *libraries]
        subprocess.run(command, check=True)


@contextmanager
def workshop() -> Iterator[Path]:
    """A scratch folder with floor and load built in it."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        build(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def installed() -> str:
    """The command of the crm-milter that is installed beside this Python."""
    program = shlex.quote(str(Path(sys.executable).with_name("crm-milter")))
    return f"{program} serve --config {{config}}"


FLOOD = 'flood: {limit: "1000000 in 1s", then: leave}'  # more than any load has


def write_config(
    path: Path,
    listen: str,
    workers: int | str,
    metrics: Sequence[str],
    rules: int,
    keys: Sequence[str] = (),
) -> None:
    """The rules of floor.c as a configuration; ``keys`` are lines for each of them."""
    lines = [
        "milter:",
        f'  listen: "{listen}"',
        '  socket_mode: "0666"',
        f"  workers: {workers}",
        "metrics:",
        *(f"  {key}" for key in metrics),
        "unrouted_to: it@solarmora.com",
        "spam: spamassassin",
        "rules:",
    ]
    for number in range(rules):
        lines += [
            f"  - name: rule{number:04}",
            f"    match: help{number:04}@solarmora.com",
            f"    replace_with: case{number:04}@case.my-crm.example",
            f"    also_deliver_to: team{number:04}@solarmora.com",
            *(f"    {key}" for key in keys),
        ]
    path.write_text("\n".join(lines) + "\n")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def process_tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # libmilter's threads come and go
            for child in children.read_text().split():
                found += process_tree(int(child))
    return found


@dataclass
class Server:
    """A milter that runs: one candidate on one socket."""

    name: str
    listen: str
    process: subprocess.Popen[bytes]
    log: Path

    def cpu(self) -> float:
        """Seconds of processor time that its processes have taken."""
        total = 0
        for pid in process_tree(self.process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def pss(self) -> float:
        """Its share of memory in MB: shared pages are divided among those that share them."""
        total = 0
        for pid in process_tree(self.process.pid):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(
                int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")
            )
        return total / 1024

    @property
    def postfix_address(self) -> str:
        """The listener as main.cf writes it."""
        if self.listen.startswith("unix:"):
            return self.listen
        port, _, host = self.listen.removeprefix("inet:").partition("@")
        return f"inet:{host}:{port}"

    @property
    def metrics_port(self) -> int:
        """Where its exporter listens."""
        config = self.log.with_name("config.yaml").read_text()
        return int(re.search(r"listen: 127\.0\.0\.1:(\d+)", config)[1])

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 15
        while not accepts(self.listen):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{self.name} does not serve: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)
        time.sleep(0.3)  # the probe's session has ended, and all workers are up

    def stop(self) -> None:
        """End it now: draining would wait for libmilter's five seconds."""
        if self.process.poll() is None:
            for pid in process_tree(self.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()


def accepts(listen: str) -> bool:
    kind, _, rest = listen.partition(":")
    try:
        if kind == "unix":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(rest)
        else:
            port, _, host = rest.partition("@")
            socket.create_connection((host, int(port))).close()
    except OSError:
        return False
    return True


@dataclass
class Bench:
    """What all rows share: the scratch folder, the candidates and how often to measure."""

    folder: Path
    commands: dict[str, str]
    rounds: int
    messages: int
    workers: int | str
    rules: int
    stack: ExitStack
    metrics: Sequence[str] = ()  # more lines of that section
    results: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def start(
        self,
        name: str,
        *,
        inet: bool = False,
        workers: int | str | None = None,
        quiet: bool = False,
        keys: Sequence[str] = (),
    ) -> Server:
        """Start the candidate; it is stopped at the end of the benchmark."""
        base = Path(tempfile.mkdtemp(dir=self.folder))
        base.chmod(0o755)
        listen = f"inet:{free_port()}@127.0.0.1" if inet else f"unix:{base / 'sock'}"
        config, log = base / "config.yaml", base / "log"
        workers = workers or self.workers
        metrics = ["listen: none" if quiet else f"listen: 127.0.0.1:{free_port()}", *self.metrics]
        write_config(config, listen, workers, metrics, self.rules, keys)
        command = [
            word.format(config=config, listen=listen, workers=workers, folder=self.folder)
            for word in shlex.split(self.commands[name])
        ]
        with Path("/dev/null" if quiet else log).open("ab") as stream:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        server = Server(name, listen, process, log)
        self.stack.callback(server.stop)
        server.wait_ready()
        return server

    def load(self, server: Server, *options: str, messages: int | None = None) -> dict[str, float]:
        """One run of load against the server: its rate, latencies and the server's cpu."""
        count = messages or self.messages
        before = server.cpu()
        command = self._load_command(server, count, options)
        done = subprocess.run(command, capture_output=True, text=True)
        result = _result(server, done.returncode, done.stdout + done.stderr)
        return {
            "rate": result["per_second"],
            "p50": result["latency_us"]["whole"]["p50"],
            "p99": result["latency_us"]["whole"]["p99"],
            "load": result["load_cpu"],
            "cpu": (server.cpu() - before) * 1e6 / count,
        }

    def watch(
        self, server: Server, look: Callable[[], None], interval: float, *options: str
    ) -> dict[str, Any]:
        """One run of load, all that it says of itself; ``look`` is called every so many seconds."""
        command = self._load_command(server, self.messages, options)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            while load.poll() is None:
                look()
                time.sleep(interval)
            said, _ = load.communicate()
        return _result(server, load.returncode, said)

    def _load_command(self, server: Server, count: int, options: Sequence[str]) -> list[str]:
        program = str(self.folder / "load")
        return [program, "-n", str(count), "-r", str(self.rules), *options, server.listen]

    def compare(self, row: str, runs: dict[str, Callable[[], dict[str, float]]]) -> None:
        """Run them in turn, `rounds` times after one to warm up, and keep the results."""
        results = {name: [] for name in runs}
        for number in range(self.rounds + 1):
            order = list(runs) if number % 2 else list(reversed(runs))
            for name in order:
                result = runs[name]()
                if number > 0:
                    results[name].append(result)
        self.results[row] = {
            name: {key: [result[key] for result in list_] for key in list_[0]}
            for name, list_ in results.items()
        }


def _result(server: Server, status: int, said: str) -> dict[str, Any]:
    if status != 0:
        raise BenchError(f"{server.name}: {said}")
    result: dict[str, Any] = json.loads(said)
    return result


# --- the rows ---


def row_matching(bench: Bench) -> None:
    servers = {name: bench.start(name) for name in bench.commands}
    compare_load(bench, "matching", servers, ["-p", "100"])


def row_nonmatching(bench: Bench) -> None:
    servers = {name: bench.start(name) for name in bench.commands}
    compare_load(bench, "non-matching", servers, ["-p", "0"], 4 * bench.messages)


def row_single(bench: Bench) -> None:
    """One process each: ours keeps to one processor, the floor has them all."""
    servers = {name: bench.start(name, workers=1) for name in bench.commands}
    compare_load(bench, "matching, one process each", servers, ["-p", "100"])
    compare_load(bench, "non-matching, one process each", servers, ["-p", "0"], 4 * bench.messages)


def row_p99(bench: Bench) -> None:
    servers = {name: bench.start(name) for name in bench.commands}
    compare_load(bench, "matching, 200 connections", servers, ["-p", "100", "-c", "200"])


def row_inet(bench: Bench) -> None:
    """Each candidate against itself: inet in terms of unix."""
    for name in bench.commands:
        servers = {"unix": bench.start(name), "inet": bench.start(name, inet=True)}
        compare_load(bench, f"matching, {name}, inet against unix", servers, ["-p", "100"])


def row_header(bench: Bench) -> None:
    """What it costs that the header decides, and what an expression or an address in it costs."""
    kinds = {
        "at RCPT": (),
        "headers": ('headers: {Subject: "*order of last week*"}',),
        "expression": ("headers: {Subject: '/order .* week/'}",),
        "except_headers": ('except_headers: {Subject: "*invoice*", X-Other: "*"}',),
        "case_group": ("case_group: all",),
        "until": ("until: 2099-01-01 00:00Z",),
    }
    for name in bench.commands:
        if name != FLOOR:
            servers = {kind: bench.start(name, keys=keys) for kind, keys in kinds.items()}
            compare_load(bench, f"matching, {name}, conditions", servers, ["-p", "100"])


def row_seldom(bench: Bench) -> None:
    """More recipients in turn than are remembered: each message is decided anew."""
    servers = {name: bench.start(name) for name in bench.commands}
    compare_load(bench, "matching, 1,000 recipients in turn", servers, ["-p", "100"])
    often, bench.rules = bench.rules, 5000
    bench.commands = {
        name: command.removesuffix(f" {often}") + " 5000" if name == FLOOR else command
        for name, command in bench.commands.items()
    }
    servers = {name: bench.start(name) for name in bench.commands}
    compare_load(bench, "matching, 5,000 recipients in turn", servers, ["-p", "100"])


def row_reload(bench: Bench) -> None:
    """The slowest hundredth of the messages while the rules are read again, twice a second."""
    for name in bench.commands:
        if name == FLOOR:
            continue
        server = bench.start(name)
        runs = {
            "calm": lambda server=server: watched(bench, server, lambda: None),
            "reloads": lambda server=server: watched(
                bench, server, lambda: server.process.send_signal(signal.SIGHUP)
            ),
        }
        bench.compare(f"matching, {name}, reloads under load", runs)


def watched(bench: Bench, server: Server, look: Callable[[], None]) -> dict[str, float]:
    result = bench.watch(server, look, 0.5, "-p", "100")
    # Not the processor time: that of workers which have ended since cannot be asked for.
    return {"rate": result["per_second"], "p99": result["latency_us"]["whole"]["p99"], "cpu": 0.0}


def row_quiet(bench: Bench) -> None:
    """What metrics and log cost: the exporter off and the log to nowhere, against both on."""
    for name in bench.commands:
        if name != FLOOR:
            servers = {"quiet": bench.start(name, quiet=True), "metrics and log": bench.start(name)}
            compare_load(bench, f"matching, {name}, metrics and log", servers, ["-p", "100"])


def row_flood(bench: Bench) -> None:
    """What the flood guard costs: mail within its limit, against the same rules without one."""
    for name in bench.commands:
        if name != FLOOR:
            servers = {"without": bench.start(name), "flood": bench.start(name, keys=[FLOOD])}
            compare_load(bench, f"matching, {name}, flood", servers, ["-p", "100"])


def row_memory(bench: Bench) -> None:
    """PSS in MB: after the start, the peak with 1,000 more connections open, and after that.

    Other processes of the same Python make it look smaller: pages are divided among them, too.
    """
    for name in bench.commands:
        server = bench.start(name)
        time.sleep(1)
        idle = server.pss()
        peak, p99 = load_with_idle_connections(bench, server, 1000)
        bench.results.setdefault("memory", {})[name] = {
            "idle": [idle],
            "peak": [peak],
            "after": [server.pss()],
            "p99": [p99],
        }


def load_with_idle_connections(bench: Bench, server: Server, idle: int) -> tuple[float, float]:
    """The peak of the server's memory and the p99 of the load beside so many idle connections."""
    sizes: list[float] = []
    result = bench.watch(server, lambda: sizes.append(server.pss()), 0.1, "-i", str(idle))
    return max(sizes), result["latency_us"]["whole"]["p99"]


def compare_load(
    bench: Bench,
    row: str,
    servers: dict[str, Server],
    options: Sequence[str],
    messages: int | None = None,
) -> None:
    def runner(server: Server) -> Callable[[], dict[str, float]]:
        return lambda: bench.load(server, *options, messages=messages)

    bench.compare(row, {name: runner(server) for name, server in servers.items()})


ROWS = {
    "matching": row_matching,
    "nonmatching": row_nonmatching,
    "single": row_single,
    "p99": row_p99,
    "inet": row_inet,
    "quiet": row_quiet,
    "reload": row_reload,
    "flood": row_flood,
    "memory": row_memory,
    "header": row_header,
    "seldom": row_seldom,  # last: with other rules
}


def rows_postfix(bench: Bench, sessions: int, messages: int) -> None:
    """Through one private Postfix that has an smtpd for each candidate, and one without a milter.

    All candidates so share the queue, cleanup and everything else. Accepted mail is discarded;
    the next run starts when the queue is empty. How long smtp-source takes is measured.
    """
    sys.path.insert(0, str(HERE.parents[1] / "postfix"))
    from lab.postfix import Postfix
    from lab.sink import Sink

    servers = {name: bench.start(name) for name in bench.commands}
    services = {
        name: {"smtpd_milters": f"{{ {server.postfix_address}, default_action=tempfail }}"}
        for name, server in servers.items()
    }
    transports = ("default", "local", "relay", "virtual")
    main = {
        **{f"{kind}_transport": "discard:" for kind in transports},
        "virtual_alias_maps": "",
        "transport_maps": "",
    }
    # Started in this thread, since a child of the lab ends with the thread that started it.
    postfix = Postfix(Sink(), services={**services, "none": {"smtpd_milters": ""}}, main=main)
    bench.stack.enter_context(postfix)
    for what, recipient in (("matching", "help0000"), ("non-matching", "user0000")):
        runs = {
            name: mail_runner(postfix, name, servers.get(name), recipient, sessions, messages)
            for name in [*servers, "none"]
        }
        bench.compare(f"through Postfix, {what}", runs)


def mail_runner(
    postfix: Any, name: str, server: Server | None, recipient: str, sessions: int, messages: int
) -> Callable[[], dict[str, float]]:
    """A function that sends the messages through the smtpd of the candidate."""
    source = Path("/usr/sbin/smtp-source")
    command = [str(source), "-s", str(sessions), "-m", str(messages), "-l", "4096"]
    command += ["-f", "customer@customer.example", "-t", f"{recipient}@solarmora.com"]
    command.append(f"127.0.0.1:{postfix.ports[name]}")
    rerouted = server is not None and recipient.startswith("help")

    def run() -> dict[str, float]:
        postfix.maillog.mark()
        before = server.cpu() if server else 0.0
        began = time.monotonic()
        subprocess.run(command, check=True)
        seconds = time.monotonic() - began
        cpu = server.cpu() - before if server else 0.0
        postfix.wait_empty_queue(timeout=120)
        check_deliveries(name, postfix.maillog.text, messages, recipient, rerouted)
        return {"rate": messages / seconds, "cpu": cpu * 1e6 / messages}

    return run


def check_deliveries(
    name: str, log: Callable[[], str], messages: int, recipient: str, rerouted: bool
) -> None:
    """Every message was discarded for the recipients that it should have had, and no others."""
    expected = [f"{recipient}@solarmora.com"]
    if rerouted:
        expected = ["case0000@case.my-crm.example", "team0000@solarmora.com"]
    deadline = time.monotonic() + 10  # the log comes after the fact
    while (found := deliveries(log())) != dict.fromkeys(expected, messages):
        if time.monotonic() > deadline:
            raise BenchError(f"{name}: of {messages} messages were delivered {found}")
        time.sleep(0.05)


def deliveries(log: str) -> dict[str, int]:
    """How many messages were delivered to each address; what failed counts under its status."""
    found: dict[str, int] = {}
    for line in log.splitlines():
        if " status=" in line:
            address = line.partition("to=<")[2].partition(">")[0]
            status = line.partition(" status=")[2].partition(" ")[0]
            key = address if status == "sent" else f"{address} {status}"
            found[key] = found.get(key, 0) + 1
    return found


# --- the table ---


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], medians[-51]


def ratio_text(values: Sequence[float], base: Sequence[float]) -> str:
    ratios = [value / other for value, other in zip(values, base, strict=True)]
    low, high = interval(ratios)
    return f"{statistics.median(ratios):.2f} [{low:.2f}..{high:.2f}]"


def table(results: dict[str, dict[str, dict[str, list[float]]]]) -> Iterable[str]:
    """The lines of the table; every candidate is compared with the first of its row."""
    head = f"{'row':42} {'candidate':16} {'msg/s':>8} {'x first':>18} {'p99 ms':>8}"
    yield f"{head} {'p99 x first':>18} {'cpu us':>7} {'cpu x first':>18}"
    for row, candidates in results.items():
        if row == "memory":
            continue
        base = next(iter(candidates.values()))
        for name, values in candidates.items():
            cells = [f"{row:42} {name:16} {statistics.median(values['rate']):8.0f}"]
            cells.append(f"{ratio_text(values['rate'], base['rate']):>18}")
            if "p99" in values:
                cells.append(f"{statistics.median(values['p99']) / 1000:8.2f}")
                cells.append(f"{ratio_text(values['p99'], base['p99']):>18}")
            else:
                cells.append(f"{'':27}")
            cells.append(f"{statistics.median(values['cpu']):7.0f}")
            if min(values["cpu"]) > 0 and min(base["cpu"]) > 0:
                cells.append(f"{ratio_text(values['cpu'], base['cpu']):>18}")
            yield " ".join(cells)
    for name, values in results.get("memory", {}).items():
        yield (
            f"memory of {name}, PSS of all processes: {values['idle'][0]:.1f} MB idle, "
            f"{values['peak'][0]:.1f} MB with 1,000 idle connections and load "
            f"(p99 {values['p99'][0] / 1000:.2f} ms), {values['after'][0]:.1f} MB after"
        )


def capacity(bench: Bench) -> str:
    """What load reaches against the fastest responder we have, itself: it is no bottleneck."""
    listen = f"unix:{bench.folder / 'responder'}"
    process = subprocess.Popen([str(bench.folder / "load"), "-s", listen])
    server = Server("responder", listen, process, Path("/dev/null"))
    bench.stack.callback(server.stop)
    server.wait_ready()
    rates = [
        max(bench.load(server, "-p", match, messages=5 * bench.messages)["rate"] for _ in range(3))
        for match in ("100", "0")
    ]
    return f"load alone: {rates[0]:.0f} matching, {rates[1]:.0f} non-matching messages/s"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds a row (7)")
    parser.add_argument("--messages", type=int, default=20_000, help="messages a run (20000)")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--workers", default="auto", help="milter.workers of ours (auto)")
    parser.add_argument("--rules", type=int, default=1000, help="rules (1000)")
    parser.add_argument("--ours", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--no-floor", action="store_true", help="leave the C floor out")
    parser.add_argument("--postfix", action="store_true", help="the rows through Postfix instead")
    parser.add_argument("--sessions", type=int, default=20, help="of smtp-source (20)")
    parser.add_argument("--mails", type=int, default=2000, help="a run through Postfix (2000)")
    parser.add_argument("--json", type=Path, help="write all results to this file, too")
    return parser.parse_args()


def candidates(options: argparse.Namespace) -> dict[str, str]:
    commands = {} if options.no_floor else {FLOOR: f"{{folder}}/floor {{listen}} {options.rules}"}
    for text in options.ours or [f"{OURS}={installed()}"]:
        name, _, command = text.partition("=")
        commands[name] = command
    return commands


def main() -> int:
    options = arguments()
    with ExitStack() as outer:
        folder = outer.enter_context(workshop())
        bench = Bench(
            folder,
            candidates(options),
            options.rounds,
            options.messages,
            options.workers,
            options.rules,
            outer,
        )
        try:
            run_rows(bench, options)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        finally:
            if options.json:
                options.json.write_text(json.dumps(bench.results, indent=1))
    return 0


def run_rows(bench: Bench, options: argparse.Namespace) -> None:
    """Run what was asked for, print the table as it grows."""
    raise_file_limit()
    if options.postfix:
        with ExitStack() as bench.stack:
            rows_postfix(bench, options.sessions, options.mails)
    else:
        with ExitStack() as bench.stack:
            print(capacity(bench), flush=True)
        for row in options.rows.split(","):
            with ExitStack() as bench.stack:
                ROWS[row](bench)
            print(f"done: {row}", file=sys.stderr, flush=True)
    print("\n".join(table(bench.results)))


def raise_file_limit() -> None:
    """A thousand connections need more descriptors than the usual limit; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 16384), most))


if __name__ == "__main__":
    sys.exit(main())
