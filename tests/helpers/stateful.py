"""What the controller of StatefulSets does: pods and their claims, from the one template."""

from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    """Return the documents of a manifest."""
    return list(yaml.safe_load_all(path.read_text()))


def of_kind(kind: str, found: list[Manifest]) -> Manifest:
    """Return the only document of that kind."""
    (document,) = (each for each in found if each["kind"] == kind)
    return document


def claims(found: list[Manifest], number: int) -> dict[str, str]:
    """Return the claims of the pod of that number: the name of each volume, and of its claim."""
    wanted = of_kind("StatefulSet", found)
    names = [each["metadata"]["name"] for each in wanted["spec"]["volumeClaimTemplates"]]
    return {name: f"{name}-{wanted['metadata']['name']}-{number}" for name in names}


def pod(found: list[Manifest], number: int) -> list[Manifest]:
    """Return the pod of that number and its configuration, for "podman kube play"."""
    wanted = of_kind("StatefulSet", found)
    name = f"{wanted['metadata']['name']}-{number}"
    template = wanted["spec"]["template"]
    volumes = [
        {"name": volume, "persistentVolumeClaim": {"claimName": claim}}
        for volume, claim in claims(found, number).items()
    ]
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": template["metadata"]["labels"]},
        "spec": template["spec"] | {"volumes": [*template["spec"]["volumes"], *volumes]},
    }
    # Podman has one volume for all the emptyDirs of a name.
    text = yaml.safe_dump(document).replace("name: milter\n", f"name: milter-{number}\n")
    return [of_kind("ConfigMap", found), yaml.safe_load(text)]
