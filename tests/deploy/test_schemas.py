"""The files in deploy/ against the schemas of those who read them; the packages that check bring the schemas along."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from .manifests import COMPOSE, KUBERNETES

# The first with stable gRPC probes, and the newest that the package knows.
VERSIONS = ("1.27", kubernetes_validate.latest_version())

DOCUMENTS = [
    pytest.param(document, id=f"{document['kind']}-{document['metadata']['name']}")
    for path in KUBERNETES
    for document in yaml.safe_load_all(path.read_text())
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_kubernetes_knows_every_field(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_kubernetes_does_not_know_is_found(document: dict[str, Any]) -> None:
    wrong = copy.deepcopy(document)
    wrong["spec"]["terminationGracePeriod"] = 40
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def compose_complains(path: Path) -> str:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout


def test_compose_knows_every_field() -> None:
    assert compose_complains(COMPOSE) == ""


def test_what_compose_does_not_know_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("stop_grace_period: 30s", "stop_grace: 30s"))
    assert "stop_grace" in compose_complains(wrong)
