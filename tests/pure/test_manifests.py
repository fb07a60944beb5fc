"""The configuration of the containers: valid, and the same on Kubernetes as with compose."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

_POSTFIX = Path(__file__).parents[2] / "postfix"
_DOCUMENTS = list(yaml.safe_load_all((_POSTFIX / "kubernetes.yaml").read_text()))
_LIMIT = 60  # seconds that both drain_timeout and DRAIN_SECONDS are by default


def _only(kind: str) -> dict[str, Any]:
    (found,) = (each for each in _DOCUMENTS if each["kind"] == kind)
    return dict(found)


def _containers() -> dict[str, dict[str, Any]]:
    spec = _only("StatefulSet")["spec"]["template"]["spec"]
    return {each["name"]: each for each in spec["containers"]}


@pytest.mark.parametrize("version", ["1.29.0", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda each: f"{each['kind']}")
def test_the_schema_takes_each_document(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_queue_is_on_a_volume_of_each_pod() -> None:
    wanted = _only("StatefulSet")["spec"]
    (claim,) = wanted["volumeClaimTemplates"]
    mounts = {each["mountPath"]: each["name"] for each in _containers()["postfix"]["volumeMounts"]}
    assert mounts["/var/spool/postfix"] == claim["metadata"]["name"]
    assert claim["metadata"]["name"] not in {
        each["name"] for each in wanted["template"]["spec"]["volumes"]
    }


def test_no_container_can_gain_privileges() -> None:
    for container in _containers().values():
        context = container["securityContext"]
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["allowPrivilegeEscalation"] is False
    milter = _containers()["crm-milter"]["securityContext"]
    assert milter["runAsNonRoot"] is True
    assert "runAsUser" not in milter


def test_there_is_time_to_drain() -> None:
    grace = _only("StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > 2 * _LIMIT
    services = yaml.safe_load((_POSTFIX / "compose.yaml").read_text())["services"]
    assert services["crm-milter"]["stop_grace_period"] == f"{grace}s"
    assert int(services["postfix"]["stop_grace_period"][:-1]) > _LIMIT
    assert "DRAIN_SECONDS:-60" in (_POSTFIX / "container/postfix").read_text()


def test_both_configurations_say_the_same() -> None:
    data = _only("ConfigMap")["data"]
    compose = {each.name: each.read_text() for each in (_POSTFIX / "config").iterdir()}
    assert compose.keys() == data.keys()
    name = "crm-milter.yaml"
    assert yaml.safe_load(compose[name]) == yaml.safe_load(data[name])
    comment = re.compile(r"^#.*\n", re.MULTILINE)
    assert comment.sub("", compose["main.cf"]) == comment.sub("", data["main.cf"])


def test_compose_ships_what_it_mounts() -> None:
    for service in yaml.safe_load((_POSTFIX / "compose.yaml").read_text())["services"].values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert list((_POSTFIX / source).iterdir())
