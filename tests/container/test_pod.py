"""The container images and the Kubernetes manifest, as podman plays it: no cluster is involved."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailhost import HAM, HELP, SUPPORT
from pods import ROOT, Container, image, run, wait_for

NAME = "crm-milter-pod-0"
IMAGES = {"postfix": "crm-milter-postfix", "crm-milter": "crm-milter"}


@pytest.fixture(scope="module")
def images(package: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The two images, of the package as it is now."""
    context = tmp_path_factory.mktemp("context")
    (context / "dist").mkdir()
    shutil.copy(package, context / "dist")
    shutil.copytree(ROOT / "postfix/container", context / "postfix/container")
    for target, name in IMAGES.items():
        run(
            *("podman", "build", "-q", "--network=host", "--build-arg", f"BASE={image('host')}"),
            *("-f", str(ROOT / "postfix/Containerfile"), "--target", target, "-t", name),
            str(context),
            timeout=600,
        )


@pytest.fixture
def pod(images: None, crm: Container, tmp_path: Path) -> Iterator[str]:
    """The address of a pod that the manifest makes, with our CRM for the one that it names."""
    manifest = tmp_path / "kubernetes.yaml"
    transport = f"transport_maps = inline:{{.my-crm.com=smtp:[{crm.address}]:25}}"
    text = (ROOT / "postfix/kubernetes.yaml").read_text()
    mark = "    inet_interfaces = all\n"
    assert mark in text
    manifest.write_text(text.replace(mark, f"{mark}    {transport}\n"))
    run("podman", "kube", "play", str(manifest), timeout=120)
    (inspected,) = json.loads(run("podman", "pod", "inspect", NAME, "--format", "[{{json .}}]"))
    (found,) = json.loads(run("podman", "inspect", inspected["InfraContainerID"]))
    (network,) = found["NetworkSettings"]["Networks"].values()
    yield network["IPAddress"]
    run("podman", "kube", "down", str(manifest), timeout=180)


def test_the_manifest_makes_a_mail_host(pod: str, crm: Container, world: Container) -> None:
    crm.run("rm", "-f", "/tmp/taken")
    program = ("python3", "/source/tests/container/world.py", pod, HELP)
    text = f"{HAM}X-Test-Id: pod\r\n\r\nhello\r\n"

    def accepted() -> bool:
        reply = world.run(*program, text=text, check=False)
        return '"code": 250' in reply

    wait_for("mail to be taken", accepted, 60)
    taken = wait_for("the mail at the CRM", lambda: crm.read("/tmp/taken"), 30)
    (to,) = json.loads(taken.splitlines()[0])["to"]
    assert to.partition(" ")[0] == f"<{SUPPORT}>"
    health = f"import urllib.request as u; print(u.urlopen('http://{pod}:9894/healthz').status)"
    assert world.run("python3", "-c", health).strip() == "200"
