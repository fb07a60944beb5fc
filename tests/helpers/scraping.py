"""A private Prometheus, its tools, our alerts, and looking at what the exporter says."""

import http.client
import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lab.base import Child, LogFile, free_port, scratch, wait_for
from lab.milter import Milter

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "prometheus"

Key = tuple[str, frozenset[tuple[str, str]]]


def tool(name: str) -> str:
    """Debian's prometheus or promtool, as postfix/install --tests unpacks it."""
    unpacked = ROOT / ".venv" / "prometheus" / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: postfix/install --tests")
    return found


def promtool(*arguments: str | Path, text: bytes = b"") -> str:
    """What promtool prints; it must find nothing wrong."""
    done = subprocess.run(
        [tool("promtool"), *map(str, arguments)], input=text, capture_output=True, timeout=60
    )
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    return output


class Exporter:
    """What is served on a port."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, accept: str = "", method: str = "GET") -> tuple[int, str, bytes]:
        """Status, content type and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers={"Accept": accept})
            response = connection.getresponse()
            return response.status, response.headers["Content-Type"], response.read()
        finally:
            connection.close()

    def text(self) -> str:
        """The metrics as they are now, which is after the time for which a page is kept."""
        status, _, body = self.get("/metrics")
        assert status == 200, body
        return body.decode()

    def samples(self) -> dict[Key, float]:
        """The value of each series."""
        return {
            (
                sample.name.removeprefix("crm_milter_"),
                frozenset(sample.labels.items()),
            ): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """One of them, by its name without the prefix."""
        return self.samples()[name, frozenset(labels.items())]

    def counts(self, name: str, *labels: str) -> dict[Any, float]:
        """The series of a metric that are not 0, by the values of these labels."""
        found = {}
        for (series, pairs), value in self.samples().items():
            if series == name and value:
                values = dict(pairs)
                key = tuple(values[label] for label in labels)
                found[key[0] if len(key) == 1 else key] = value
        return found

    def wait(self) -> "Exporter":
        """Return when it serves."""
        wait_for(f"the exporter on port {self.port}", self._serves)
        return self

    def _serves(self) -> bool:
        try:
            return self.get("/healthz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


class Prometheus:
    """A real one that scrapes these ports every 200 ms and knows our alerts."""

    def __init__(self, *ports: int) -> None:
        self.folder = scratch()
        self.port = free_port()
        self.log = LogFile(self.folder / "log")
        targets = [f"127.0.0.1:{port}" for port in ports]
        config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
            "scrape_configs": [
                {"job_name": "crm-milter", "static_configs": [{"targets": targets}]}
            ],
            "rule_files": [str(MONITORING / "crm-milter.rules.yml")],
        }
        (self.folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self._child = Child(
            [
                tool("prometheus"),
                f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            self.folder,
            self.log.path,
        )

    def stop(self) -> None:
        self._child.stop(first=9)
        shutil.rmtree(self.folder, ignore_errors=True)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query, now."""
        result = self.api("query", query=expression)
        return [{**each, "value": float(each["value"][1])} for each in result["result"]]

    def api(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]

    def wait_for(self, expression: str, timeout: float = 10.0) -> list[dict[str, Any]]:
        """The result as soon as there is one."""

        def look() -> list[dict[str, Any]]:
            try:
                return self.query(expression)
            except (OSError, ValueError):  # it has only just started
                return []

        return wait_for(f"{expression}\n{self.log.text()[-2000:]}", look, timeout)


def with_metrics(
    config: str, workers: int = 2, port: int = 0, deliveries: str = "none"
) -> tuple[str, int]:
    """The configuration with an exporter on this or a free port, and that port."""
    port = port or free_port()
    head = f'milter:\n  listen: LISTEN\n  socket_mode: "0666"\n  workers: {workers}\n'
    metrics = f"metrics:\n  listen: 127.0.0.1:{port}\n  deliveries: {deliveries}\n"
    return head + metrics + config, port


def children_of(milter: Milter) -> list[int]:
    """The workers and the exporter."""
    path = Path(f"/proc/{milter.pid}/task/{milter.pid}/children")
    return [int(each) for each in path.read_text().split()]


def exporters_of(milter: Milter) -> list[int]:
    """Those of the children that stand back behind the mail."""
    return [each for each in children_of(milter) if niceness(each) > niceness(milter.pid)]


def workers_of(milter: Milter) -> list[int]:
    return [each for each in children_of(milter) if niceness(each) == niceness(milter.pid)]


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def settle() -> None:
    """Let the time pass for which the exporter keeps a page."""
    time.sleep(0.25)


def alerts() -> list[dict[str, object]]:
    (group,) = yaml.safe_load((MONITORING / "crm-milter.rules.yml").read_text())["groups"]
    return group["rules"]
