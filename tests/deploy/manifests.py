"""What the files in deploy/ and the Dockerfile tell a platform, in one form for all of them.

Nothing is repeated here: a number that a test uses comes from the file that a user would apply.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
COMPOSE = ROOT / "deploy/compose.yaml"
SAE = ROOT / "deploy/sae.yaml"


@dataclass(frozen=True)
class Probe:
    """What is asked, how often, and how many answers in a row count. Asks gRPC's health service if there is no path."""

    port: int
    path: str | None = None
    initial_delay: float = 0
    period: float = 10
    timeout: float = 1
    failures: int = 3


@dataclass(frozen=True)
class Spec:
    """A pod, as its platform is told to run it."""

    command: list[str]
    """The image's entry point, with arguments."""
    env: dict[str, str]
    """The image's variables and the platform's; one that comes from a secret is empty."""
    grace: float
    """From the first sign of the end to SIGKILL."""
    replicas: int = 1
    startup: Probe | None = None
    liveness: Probe | None = None
    readiness: Probe | None = None
    pre_stop: list[str] = field(default_factory=list)
    surges: bool = False
    """Whether a new pod is ready before an old one goes; else pods are replaced where they are."""
    min_ready: float = 0
    service_links: bool = False
    """Whether the variables of the namespace's Services are put into the environment."""

    def having(self, env: Mapping[str, str]) -> Self:
        """The same with more variables."""
        return replace(self, env=self.env | env)


def resources(kind: str) -> dict[str, Any]:
    """The Kubernetes resources of a kind, by name."""
    found = [document for path in KUBERNETES for document in yaml.safe_load_all(path.read_text())]
    return {document["metadata"]["name"]: document for document in found if document["kind"] == kind}


def on_kubernetes(name: str) -> Spec:
    deployment = resources("Deployment")[name]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}

    def probe(kind: str) -> Probe | None:
        told = container.get(kind)
        if told is None:
            return None
        asked = told.get("httpGet") or told["grpc"]
        return _probe(told, ports.get(asked["port"], asked["port"]), asked.get("path"))

    update = deployment.get("strategy", {}).get("rollingUpdate", {})
    return Spec(
        **_image(container["image"], container["args"]),
        grace=pod["terminationGracePeriodSeconds"],
        replicas=deployment["replicas"],
        startup=probe("startupProbe"),
        liveness=probe("livenessProbe"),
        readiness=probe("readinessProbe"),
        pre_stop=container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", []),
        surges=(update.get("maxSurge"), update.get("maxUnavailable")) == (1, 0),
        min_ready=deployment.get("minReadySeconds", 0),
        service_links=pod.get("enableServiceLinks", True),
    ).having(_variables(container.get("env", ())))


def on_sae(name: str) -> Spec:
    told = yaml.safe_load(SAE.read_text())[name]

    def probe(kind: str) -> Probe | None:
        return _probe(told[kind], **{k: told[kind]["httpGet"][k] for k in ("port", "path")}) if kind in told else None

    return Spec(
        **_image("jobwire" if name == "server" else "jobwire-worker", told["CommandArgs"]),
        grace=told["TerminationGracePeriodSeconds"],
        replicas=told["Replicas"],
        liveness=probe("Liveness"),
        readiness=probe("Readiness"),
        pre_stop=told.get("PreStop", {}).get("exec", {}).get("command", []),
    ).having(_variables(told.get("Envs", ())))


def on_compose(name: str) -> Spec:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    told = services[name]
    check = told.get("healthcheck")
    seconds = {key: float(check[key].removesuffix("s")) for key in ("interval", "timeout")} if check else {}
    return Spec(
        **_image(told["image"], told["command"]),
        grace=float(told["stop_grace_period"].removesuffix("s")),
        replicas=sum(service["image"] == told["image"] for service in services.values()),
        readiness=Probe(8080, "/readyz", period=seconds["interval"], timeout=seconds["timeout"]) if check else None,
    ).having(told.get("environment", {}))


def _probe(told: dict[str, Any], port: int, path: str | None) -> Probe:
    return Probe(
        port,
        path,
        initial_delay=told.get("initialDelaySeconds", 0),
        period=told.get("periodSeconds", 10),
        timeout=told.get("timeoutSeconds", 1),
        failures=told.get("failureThreshold", 3),
    )


def _variables(env: Any) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in env}


def _image(image: str, arguments: list[str]) -> dict[str, Any]:
    entrypoint, env = stage("worker" if image.startswith("jobwire-worker") else "server")
    return {"command": [*entrypoint, *arguments], "env": env}


def stage(name: str) -> tuple[list[str], dict[str, str]]:
    """Entry point and variables of a stage of the Dockerfile, with those of the stages below it."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    stages: dict[str, tuple[list[str], dict[str, str]]] = {}
    entrypoint: list[str] = []
    env: dict[str, str] = {}
    for word, _, rest in (line.partition(" ") for line in text.splitlines()):
        if word == "FROM":
            below, _, own = rest.partition(" AS ")
            entrypoint, env = stages.get(below, ([], {}))
            entrypoint, env = list(entrypoint), dict(env)
            stages[own] = (entrypoint, env)
        elif word == "ENTRYPOINT":
            entrypoint[:] = json.loads(rest)
        elif word == "ENV":
            env.update(pair.split("=", 1) for pair in shlex.split(rest))
    return stages[name]
