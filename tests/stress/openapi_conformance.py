"""Conformance of the server to its OpenAPI description, checked by schemathesis."""

import re
import subprocess
from collections.abc import Iterator

from tests.stress.config import StressConfig
from tests.stress.result import Result
from tests.stress.server import HOST, ModelStore, run_server


def openapi_conformance(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Run schemathesis, which generates valid and invalid requests from `/docs.json`."""
    with run_server(store) as server:
        command = ["schemathesis", "run", f"http://{HOST}:{server.port}/docs.json"]
        command += ["--seed=1", "--phases=examples,coverage,fuzzing", "--continue-on-failure"]
        command += [f"--max-examples={config.schemathesis_examples}"]
        completed = subprocess.run(
            command, cwd=store.folder, env=store.server_env(), capture_output=True, text=True
        )
        output = completed.stdout
    match = re.search(r"(\d+) generated", output)
    attempts = int(match[1]) if match else 0
    failures = re.findall(r"^- (ST\d+ .*|.*)$", output, re.MULTILINE)
    ok = completed.returncode == 0 and attempts > 0
    measured = "; ".join(sorted({*failures}))
    check = "requests generated from /docs.json"
    yield Result(check, attempts, len(failures), measured, "conform to the description", ok)
