"""The numbers and names in deploy/, in the image, in the settings and in docs/deploy.md agree with each other."""

from __future__ import annotations

import inspect
import os
import re
from typing import Any

import pytest
import yaml

from jobwire import Worker
from jobwire.session import TIME_TO_LEAVE
from jobwire_server.settings import Settings, load_settings

from .manifests import COMPOSE, ROOT, Spec, on_compose, on_kubernetes, on_sae, resources, stage
from .names import TTL

CLOSING = 10.0
"""What a server may take beyond `drain_timeout` to close HTTP (2 s) and its connections (5 s), in seconds."""

LEAVING = 5.0
"""What a worker may take beyond its graces to end its processes and itself, in seconds."""

SERVERS = {"Kubernetes": on_kubernetes("jobwire"), "SAE": on_sae("server"), "compose": on_compose("server-1")}
WORKERS = {"Kubernetes": on_kubernetes("jobwire-excel-parse"), "SAE": on_sae("worker"), "compose": on_compose("worker")}
PROBED = {name: spec for name, spec in SERVERS.items() if spec.liveness}

each_server = pytest.mark.parametrize("spec", SERVERS.values(), ids=SERVERS)
each_worker = pytest.mark.parametrize("spec", WORKERS.values(), ids=WORKERS)


def settings_of(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("JOBWIRE_")]:
        monkeypatch.delenv(name)
    for name, value in spec.env.items():
        if name.startswith("JOBWIRE_"):
            monkeypatch.setenv(name, value or "postgresql://from-a-secret/jobwire")
    return load_settings()


def pre_stop_of(spec: Spec) -> float:
    if not spec.pre_stop:
        return 0.0
    program, seconds = spec.pre_stop
    assert program == "sleep"
    return float(seconds)


@each_server
def test_a_server_has_time_to_drain(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pre_stop_of(spec) + settings_of(spec, monkeypatch).drain_timeout + CLOSING <= spec.grace


@each_worker
def test_a_worker_has_time_to_finish_or_give_back(spec: Spec) -> None:
    stop_grace = inspect.signature(Worker).parameters["stop_grace"].default
    assert stop_grace + TIME_TO_LEAVE + LEAVING <= spec.grace


@pytest.mark.parametrize("spec", PROBED.values(), ids=PROBED)
def test_sessions_outlive_the_replacement_of_the_only_replica(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    first = spec.startup or spec.liveness
    assert first is not None and spec.readiness is not None
    start = first.initial_delay + first.period * first.failures + spec.readiness.initial_delay + spec.readiness.period
    assert spec.grace + start + spec.min_ready < settings_of(spec, monkeypatch).drain_grace


def test_a_replica_goes_when_no_name_server_tells_of_its_predecessor_alone() -> None:
    assert SERVERS["Kubernetes"].min_ready >= TTL


@each_server
def test_the_ports_are_those_that_the_image_listens_on(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(spec, monkeypatch)
    assert (settings.listen, settings.http_listen) == ("0.0.0.0:50051", "0.0.0.0:8080")
    for probe in (spec.startup, spec.liveness, spec.readiness):
        assert probe is None or probe.port == (8080 if probe.path else 50051)


def test_life_is_asked_of_livez_and_readiness_of_health_or_readyz() -> None:
    for spec in SERVERS.values():
        assert {probe.path for probe in (spec.startup, spec.liveness) if probe} <= {"/livez"}
        assert spec.readiness is not None and spec.readiness.path in (None, "/readyz")


def test_the_service_names_the_pods_of_the_deployment() -> None:
    service, deployment = resources("Service")["jobwire"]["spec"], resources("Deployment")["jobwire"]["spec"]
    budget = resources("PodDisruptionBudget")["jobwire"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert service["clusterIP"] == "None"
    assert service["selector"] == labels
    assert deployment["selector"]["matchLabels"] == budget["selector"]["matchLabels"] == labels
    assert [port["port"] for port in service["ports"]] == [50051, 8080]
    assert 0 < budget["minAvailable"] < deployment["replicas"]
    assert SERVERS["Kubernetes"].surges
    # A worker must not be taken for a server.
    assert resources("Deployment")["jobwire-excel-parse"]["spec"]["selector"]["matchLabels"] != labels


def test_workers_look_the_service_up_by_its_name() -> None:
    for name in ("Kubernetes", "compose"):
        assert "dns:///jobwire:50051" in WORKERS[name].command
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for name in ("server-1", "server-2"):
        assert services[name]["networks"]["default"]["aliases"] == ["jobwire"]


@pytest.mark.parametrize("name", ["jobwire", "jobwire-excel-parse"])
def test_pods_may_do_nothing_that_they_need_not(name: str) -> None:
    pod = resources("Deployment")[name]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"] and "cpu" not in container["resources"]["limits"]


def test_the_images_users_are_numbers_and_not_root() -> None:
    users = re.findall(r"^USER (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert users == ["10001:10001"] * 2


def test_the_database_is_named_by_a_secret() -> None:
    (container,) = resources("Deployment")["jobwire"]["spec"]["template"]["spec"]["containers"]
    (variable,) = (one for one in container["env"] if one["name"] == "JOBWIRE_DATABASE_URL")
    assert variable["valueFrom"] == {"secretKeyRef": {"name": "jobwire-database", "key": "url"}}
    assert "value" not in variable


def test_the_images_start_without_a_shell_in_between() -> None:
    # A shell would keep SIGTERM for itself.
    assert stage("server")[0] == ["jobwire"]
    assert stage("worker")[0][0] == "python"


def test_the_page_says_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/deploy.md").read_text()
    assert _table(page, "| of a server |") == {
        "preStop": {name: pre_stop_of(spec) for name, spec in SERVERS.items()},
        "drain_timeout": {name: settings_of(spec, monkeypatch).drain_timeout for name, spec in SERVERS.items()},
        "to close": dict.fromkeys(SERVERS, CLOSING),
        "limit": {name: spec.grace for name, spec in SERVERS.items()},
    }
    stop_grace = inspect.signature(Worker).parameters["stop_grace"].default
    assert _table(page, "| of a worker |") == {
        "stop_grace": dict.fromkeys(WORKERS, stop_grace),
        "to give back": dict.fromkeys(WORKERS, TIME_TO_LEAVE),
        "limit": {name: spec.grace for name, spec in WORKERS.items()},
    }
    settings = settings_of(SERVERS["Kubernetes"], monkeypatch)
    for name in ("drain_grace", "drain_linger"):
        assert f"`{name}` ({getattr(settings, name):g} s)" in page


def _table(page: str, head: str) -> dict[str, dict[str, Any]]:
    """The numbers of the table that begins with `head`: by the first word in backquotes or all of it, and by column."""
    lines = page[page.index(head) :].split("\n\n", maxsplit=1)[0].splitlines()
    _, *columns = (cell.strip() for cell in lines[0].strip("|").split("|"))
    numbers: dict[str, dict[str, Any]] = {}
    for line in lines[2:]:
        what, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        numbers[what.strip("`")] = {
            column: float(cell.removesuffix(" s").replace("none", "0"))
            for column, cell in zip(columns, cells, strict=True)
        }
    return numbers
