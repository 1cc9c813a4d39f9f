#!/usr/bin/env python3
"""Generate the typed Python stubs of protos/ into the client, as the package jobwire.v1."""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "clients/python"


def main() -> int:
    package = TARGET / "jobwire/v1"
    shutil.rmtree(package, ignore_errors=True)
    sources = sorted(str(path) for path in (ROOT / "protos").rglob("*.proto"))
    # The plugins beside this interpreter, whatever PATH says.
    plugins = [f"--plugin={path}" for path in Path(sys.executable).parent.glob("protoc-gen-mypy*")]
    outputs = [
        f"--python_out={TARGET}",
        f"--grpc_python_out={TARGET}",
        f"--mypy_out=quiet:{TARGET}",
        f"--mypy_grpc_out=quiet:{TARGET}",
    ]
    well_known = f"-I{files('grpc_tools') / '_proto'}"
    status = protoc.main(["protoc", f"-I{ROOT / 'protos'}", well_known, *plugins, *outputs, *sources])
    if status == 0:
        (package / "__init__.py").write_text('"""Generated from protos/jobwire/v1 by `make protos`."""\n')
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
