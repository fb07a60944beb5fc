"""The images and the Kubernetes manifest, as podman plays it: no cluster is involved."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stateful
import yaml
from mailhost import HAM, HELP, SUPPORT, Load
from pods import ROOT, Container, image, run, wait_for

_REPLICAS = 3
_STORAGE = Path("/var/lib/containers/storage/volumes")
_CRM = "while :; do [ -e /tmp/down ] || python3 /source/tests/container/crm.py; sleep 0.1; done"


class Pods:
    """The replicas, as the controller of StatefulSets would make them."""

    def __init__(self, manifest: list[stateful.Manifest], folder: Path) -> None:
        self.manifest = manifest
        self._folder = folder
        self.addresses: dict[int, str] = {}

    def play(self, number: int) -> None:
        """Start a pod, at the address that it had; its user id is one that no image knows."""
        documents = stateful.pod(self.manifest, number)
        milter = documents[1]["spec"]["containers"][0]
        milter["securityContext"]["runAsUser"] = 1000680000 + number
        documents[1]["spec"]["containers"][1]["env"] = [{"name": "DRAIN_SECONDS", "value": "10"}]
        path = self._folder / f"pod-{number}.yaml"
        path.write_text(yaml.safe_dump_all(documents))
        # Podman takes the content of the image along into a volume that is empty.
        known = self.addresses.get(number)
        run("podman", "kube", "play", *(["--ip", known] if known else []), str(path), timeout=120)
        infra = run("podman", "pod", "inspect", _name(number), "--format", "{{.InfraContainerID}}")
        (found,) = json.loads(run("podman", "inspect", infra.strip()))
        (network,) = found["NetworkSettings"]["Networks"].values()
        self.addresses[number] = network["IPAddress"]

    def stop(self, number: int) -> float:
        """Stop a pod as a cluster does, and return how many seconds that took."""
        began = time.monotonic()
        # "podman pod stop" would take the network away first.
        parts = (f"{_name(number)}-postfix", f"{_name(number)}-crm-milter")
        run("podman", "stop", "--time", "150", *parts, timeout=170)
        run("podman", "pod", "rm", "--force", _name(number))
        return time.monotonic() - began

    def queue(self, number: int) -> str:
        """Return the mail in the queue of a pod."""
        return run("podman", "exec", f"{_name(number)}-postfix", "postqueue", "-j")

    def logs(self) -> str:
        """Return the last that each container said."""
        parts = ("postfix", "crm-milter")
        each = ((f"{_name(n)}-{part}" for part in parts) for n in range(_REPLICAS))
        return "\n".join(
            run("podman", "logs", "--tail", "20", name) for one in each for name in one
        )


def _name(number: int) -> str:
    return f"crm-milter-{number}"


@pytest.fixture(scope="module")
def far_end() -> Iterator[Container]:
    """A CRM that can be switched off and on."""
    with Container("far-end", image("host"), "sh", "-c", _CRM) as container:
        yield container


@pytest.fixture(scope="module")
def pods(
    images: None, far_end: Container, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pods]:
    """Three pods of the manifest, with another CRM than it names."""
    manifest = stateful.documents(ROOT / "postfix/kubernetes.yaml")
    data = stateful.of_kind("ConfigMap", manifest)["data"]
    route = f"transport_maps = inline:{{{{ .my-crm.com = smtp:[{far_end.address}]:25 }}}}"
    # No newline at the end.
    data["main.cf"] += (
        f"{route}\nminimal_backoff_time = 5s\nmaximal_backoff_time = 5s\nqueue_run_delay =\n   5s"
    )
    made = Pods(manifest, tmp_path_factory.mktemp("pods"))
    _remove(manifest)  # what a run that was killed left behind
    try:
        for number in range(_REPLICAS):
            made.play(number)
        yield made
    finally:
        _remove(manifest)


def _remove(manifest: list[stateful.Manifest]) -> None:
    for number in range(_REPLICAS):
        pod = ("podman", "pod", "rm", "--force", "--time", "0", _name(number))
        run(*pod, check=False, timeout=120)
        names = (*stateful.claims(manifest, number).values(), f"milter-{number}", "crm-milter")
        run("podman", "volume", "rm", "--force", *names, check=False, timeout=120)


def _reply(world: Container, server: str, recipient: str = HELP, name: str = "pod") -> str:
    program = ("python3", "/source/tests/container/world.py", server, recipient)
    text = f"{HAM}X-Test-Id: {name}\r\n\r\nhello\r\n"
    return world.run(*program, text=text, check=False)


def _taken(far_end: Container) -> dict[str, str]:
    lines = map(json.loads, far_end.read("/tmp/taken").splitlines())
    return {each["id"]: each["to"][0].partition(" ")[0] for each in lines}


def _wait_until_serving(pods: Pods, world: Container, number: int) -> None:
    server = pods.addresses[number]
    wait_for("mail to be taken", lambda: '"code": 250' in _reply(world, server), 60)


def _metric(world: Container, server: str, name: str) -> str:
    url = f"http://{server}:9894/metrics"
    script = f"import urllib.request as u; print(u.urlopen({url!r}).read().decode())"
    lines = world.run("python3", "-c", script, check=False).splitlines()
    return next((line.split()[-1] for line in lines if line.startswith(f"{name} ")), "")


def test_the_manifest_makes_mail_hosts(pods: Pods, far_end: Container, world: Container) -> None:
    for number in range(_REPLICAS):
        _wait_until_serving(pods, world, number)
    taken = wait_for("the mail at the CRM", lambda: _taken(far_end), 30)
    assert set(taken.values()) == {f"<{SUPPORT}>"}
    # The last line of main.cf counts, and so does one that goes on.
    found = run("podman", "exec", f"{_name(0)}-postfix", "postconf", "-h", "queue_run_delay")
    assert found.split() == ["5s"]
    identity = run(
        "podman", "exec", f"{_name(1)}-crm-milter", "sh", "-c", "id -u; grep CapBnd /proc/1/status"
    )
    assert identity.split() == ["1000680001", "CapBnd:", "0000000000000000"]


def test_what_was_accepted_survives_a_rollout(
    pods: Pods, far_end: Container, world: Container
) -> None:
    """Each pod is replaced under load, while the CRM is down: accepted is delivered afterwards."""
    for number in range(_REPLICAS):
        _wait_until_serving(pods, world, number)
    program = ("python3", "/source/tests/container/world.py")
    loads = [
        Load(world.start(*program, address, HELP, "2", f"{number}-"))
        for number, address in pods.addresses.items()
    ]
    time.sleep(2)
    far_end.run("sh", "-c", "touch /tmp/down; pkill -x python3")
    time.sleep(2)
    took = []
    for number in range(_REPLICAS):
        took.append(pods.stop(number))
        pods.play(number)
        _wait_until_serving(pods, world, number)
    far_end.run("rm", "/tmp/down")
    for load in loads:
        load.__exit__()
    for number in range(_REPLICAS):
        wait_for("an empty queue", lambda number=number: not pods.queue(number), 90)
    accepted = {name for load in loads for name in load.accepted}
    unknown = {name for load in loads for name in load.unknown}
    taken = _taken(far_end).keys() - {"pod"}
    assert len(accepted) > 100
    assert accepted - taken == set()
    assert taken - accepted - unknown == set()
    assert max(took) < 30
    # Sessions are not cut: an answer is never missing, and none is final.
    assert unknown == set()
    assert not [code for load in loads for code in load.replies if code.startswith("5")]


def test_an_open_session_goes_on_while_the_pod_stops(
    pods: Pods, far_end: Container, world: Container
) -> None:
    _wait_until_serving(pods, world, 0)
    script = (
        "import smtplib, sys; s = smtplib.SMTP(sys.argv[1], timeout=30); s.ehlo('world.example');"
        f"s.mail('anna@customer.example'); s.rcpt('{HELP}'); print('open', flush=True);"
        "sys.stdin.readline();"
        "print(s.data(b'X-Test-Id: open\\r\\n\\r\\nhello\\r\\n')[0]); s.quit()"
    )
    session = world.start("python3", "-c", script, pods.addresses[0])
    assert session.stdout is not None
    assert session.stdout.readline() == "open\n"
    drain = ("podman", "exec", "-d", f"{_name(0)}-postfix", "postfix-in-container", "drain")
    run(*drain)
    wait_for("no new sessions", lambda: "421" in _reply(world, pods.addresses[0]))
    output, _ = session.communicate("go on\n", timeout=30)
    assert output == "250\n"
    wait_for("the mail", lambda: "open" in _taken(far_end))
    pods.stop(0)
    pods.play(0)


def test_changes_of_the_configuration_are_taken_up(
    pods: Pods, far_end: Container, world: Container
) -> None:
    _wait_until_serving(pods, world, 0)
    server, rules = pods.addresses[0], _STORAGE / "crm-milter/_data/crm-milter.yaml"
    good = rules.read_text()
    assert '"code": 550' in _reply(world, server, "new@mail.solarmora.com")
    rules.write_text(good.replace("replace_with", "replase_with"))
    name = "crm_milter_config_last_reload_successful"
    wait_for("the failure", lambda: _metric(world, server, name) in ("0", "0.0"))
    assert '"code": 250' in _reply(world, server, name="still")
    wait_for("the mail", lambda: "still" in _taken(far_end))
    rules.write_text(good.replace(HELP, f"[{HELP}, new@mail.solarmora.com]"))
    wait_for(
        "the new address",
        lambda: '"code": 250' in _reply(world, server, "new@mail.solarmora.com", "new"),
    )
    wait_for("the mail", lambda: _taken(far_end).get("new") == f"<{SUPPORT}>")
    assert _metric(world, server, name) in ("1", "1.0")
    main = rules.with_name("main.cf")
    main.write_text(f"{main.read_text()}\n# a comment\n\nmyhostname = other.solarmora.com\r\n")
    wait_for(
        "the new main.cf",
        lambda: (
            "other" in run("podman", "exec", f"{_name(0)}-postfix", "postconf", "-h", "myhostname")
        ),
    )
