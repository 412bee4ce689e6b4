"""Does the API description tell the truth? schemathesis makes requests from it, good and bad."""

import re
import subprocess
from collections.abc import Iterator

from tests.stress.row import Row
from tests.stress.service import HOST, Home, serving
from tests.stress.size import Size


def described_requests(home: Home, size: Size) -> Iterator[Row]:
    """Run schemathesis on the live service."""
    with serving(home) as service:
        command = ["schemathesis", "run", f"http://{HOST}:{service.port}/docs.json"]
        command += ["--seed=1", "--phases=examples,coverage,fuzzing", "--continue-on-failure"]
        command += [f"--max-examples={size.schema_examples}"]
        done = subprocess.run(
            command, cwd=home.folder, env=home.env(), capture_output=True, text=True
        )
        output = done.stdout
    found = re.search(r"(\d+) generated", output)
    tried = int(found[1]) if found else 0
    failures = re.findall(r"^- (ST\d+ .*|.*)$", output, re.MULTILINE)
    ok = done.returncode == 0 and tried > 0
    figure = "; ".join(sorted({*failures}))
    yield Row("requests made from /docs.json", tried, len(failures), figure, "as described", ok)
