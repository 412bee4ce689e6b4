"""docs/clients.md: Postman and generated clients need nothing but /docs.json.

A client in Go, from the same generator, is not tested here: the compiler takes 470 MB.
"""

import json
import os
import shutil

import pytest

from house import EXAMPLE
from tests.helpers.chromium import running_chromium
from tests.helpers.commands import run, running_server
from tests.helpers.try_page import TryPage
from tests.helpers.tutorial import TUTORIAL_PREDICTION, TUTORIAL_RESPONSE

pytestmark = pytest.mark.slow  # needs HAProxy, Java and Node.js, and downloads the generators

POSTMAN_CONVERTER = ["npx", "--yes", "openapi-to-postmanv2@6.3.3"]
GENERATOR = ["uvx", "--from", "openapi-generator-cli==7.26.0", "openapi-generator-cli"]
TYPESCRIPT_COMPILER = ["npx", "--yes", "--package", "typescript@5.9.3", "tsc"]
COMPILER_FLAGS = ["--strict", "--target", "es2022", "--module", "nodenext", "--outDir", "."]

# The other paths get 403. HAProxy itself answers /readyz, for the helper that starts it.
PROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s

frontend public
    bind "127.0.0.1:${PORT}"
    monitor-uri /readyz
    http-request deny unless { path_beg /prices/ }
    http-request set-header X-Forwarded-Prefix /prices
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Proto http
    http-request replace-path /prices(/.*) \\1
    default_backend service

backend service
    server service "127.0.0.1:${SERVICE_PORT}"
"""
PYTHON_PROGRAM = f"""
from openapi_client import ApiClient, House, PredictionApi

with ApiClient() as client:
    print(PredictionApi(client).predict(House.from_dict({EXAMPLE})).to_json())
"""
TYPESCRIPT_PROGRAM = f"""
import {{ HouseFromJSON, PredictionApi }} from "./client";

const house = HouseFromJSON({json.dumps(EXAMPLE)});
new PredictionApi().predict({{ house }}).then(answer => console.log(JSON.stringify(answer)));
"""


@pytest.fixture(scope="module", autouse=True)
def programs():
    """The programs that the tests run; outside CI, skip the tests if one is not installed."""
    missing = [name for name in ("haproxy", "java", "npx") if not shutil.which(name)]
    if missing and "CI" not in os.environ:
        pytest.skip(f"Not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def prefixed(live, tmp_path_factory):
    """A client of a proxy that serves the API under /prices, and strips this prefix."""
    folder = tmp_path_factory.mktemp("proxy")
    configuration = folder / "haproxy.cfg"
    configuration.write_text(PROXY)
    port = str(live.base_url.port)
    command = ["haproxy", "-f", str(configuration)]
    with running_server(*command, log=folder / "log", SERVICE_PORT=port) as proxy:
        assert proxy.get("/docs.json").status_code == 403
        proxy.base_url = f"{proxy.base_url}/prices/"
        assert proxy.post("predict", json=EXAMPLE).json() == TUTORIAL_RESPONSE
        yield proxy


def request_bodies(item):
    """Yield the name and body of each request of a Postman collection that has one."""
    for child in item.get("item", []):
        yield from request_bodies(child)
    if body := item.get("request", {}).get("body"):
        yield item["request"]["url"]["path"][-1], json.loads(body["raw"])


@pytest.mark.parametrize("option", ["Schema", "Example"])
def test_postman_fills_in_the_example(live, tmp_path, option):
    """Postman imports with this converter. The option says what to take a body from."""
    document, collection = tmp_path / "docs.json", tmp_path / "collection.json"
    document.write_text(live.get("/docs.json").text)
    files = ["--spec", str(document), "--output", str(collection)]
    run(*POSTMAN_CONVERTER, *files, "--options", f"parametersResolution={option}")
    bodies = dict(request_bodies(json.loads(collection.read_text())))
    assert bodies.keys() == {"predict", "predict_batch"}
    assert bodies["predict"] == EXAMPLE
    assert bodies["predict_batch"]
    assert all(record == EXAMPLE for record in bodies["predict_batch"])


def generate_client(language, document, folder):
    """Generate a client from the OpenAPI document at a URL."""
    run(*GENERATOR, "generate", "-g", language, "-i", str(document), "-o", str(folder))


def check_prediction(output, client):
    """Check that the printed prediction equals the service's, in all digits."""
    assert json.loads(output) == client.post("predict", json=EXAMPLE).json()


def test_generated_python_client_predicts_behind_a_prefix(prefixed, tmp_path):
    """It takes the URL of the service from the document."""
    generate_client("python", f"{prefixed.base_url}docs.json", tmp_path)
    check_prediction(run("python", "-c", PYTHON_PROGRAM, cwd=tmp_path).stdout, prefixed)


def test_generated_typescript_client_predicts_behind_a_prefix(prefixed, tmp_path):
    """It compiles in strict mode, and takes the URL of the service from the document."""
    generate_client("typescript-fetch", f"{prefixed.base_url}docs.json", tmp_path / "client")
    (tmp_path / "main.ts").write_text(TYPESCRIPT_PROGRAM)
    run(*TYPESCRIPT_COMPILER, *COMPILER_FLAGS, "main.ts", cwd=tmp_path)
    check_prediction(run("node", "main.js", cwd=tmp_path).stdout, prefixed)


def test_page_at_try_predicts_behind_a_prefix(prefixed, tmp_path):
    """It takes the addresses of its files and of the service from its own."""
    with running_chromium(tmp_path) as browser:
        page = TryPage(browser, prefixed.base_url)
        assert page.prediction() == TUTORIAL_PREDICTION
        page.find("a[href='.']").click()
        assert browser.current_url == str(prefixed.base_url)
