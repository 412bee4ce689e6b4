"""The files of the page at /try as sent; tests/browser opens it in Chromium."""

import re

import pytest
from starlette.testclient import TestClient

from service import HousePrice
from serving.http.try_page import STATIC

FILES = sorted(path.name for path in (STATIC / "try").iterdir())


def test_page_loads_only_relative_links_which_exist(client):
    """Behind a proxy that adds a path prefix, absolute links would fail."""
    page = client.get("/try")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    links = {*re.findall(r'(?:href|src)="(.*?)"', page.text)} - {"."}
    assert links == {"try/icon.svg", "try/style.css", "try/main.js"}
    for link in links:
        assert client.get(f"/{link}").status_code == 200


@pytest.mark.parametrize("name", FILES)
def test_file_is_sent_with_its_type_and_a_strict_policy(client, name):
    """A browser runs a module only as JavaScript; the policy allows only the service's files."""
    response = client.get(f"/try/{name}")
    types = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert response.headers["content-type"].startswith(types[name.rpartition(".")[2]])
    assert response.headers["cache-control"] == "no-cache"
    policy = response.headers["content-security-policy"]
    assert policy == client.get("/try").headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert set(rules.values()) == {"'none'", "'self'"}
    assert rules["default-src"] == "'none'"


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_module_imports_only_modules_of_the_page(name):
    """The page has no build step and no third-party code."""
    imports = re.findall(r'^import .* from "(.*)";', (STATIC / "try" / name).read_text(), re.M)
    assert {path.removeprefix("./") for path in imports} <= set(FILES)


def test_page_has_no_inline_script_or_style(client):
    """The policy would block them."""
    text = client.get("/try").text
    assert "<style" not in text
    assert not re.search(r"\s(style|on\w+)=", text)
    assert re.findall(r"<script.*?</script>", text, re.S) == [
        '<script type="module" src="try/main.js"></script>'
    ]


def test_setting_switches_the_page_off(model, monkeypatch):
    """With TRY_PAGE=false neither the page nor the link to it exists."""
    monkeypatch.setattr(HousePrice.inner.settings, "try_page", False)
    # Not as a context manager: startup would replace the service of the other tests.
    client = TestClient(HousePrice.to_asgi(is_main=True), raise_server_exceptions=False)
    assert client.get("/try").status_code == 404
    assert client.get("/try/main.js").status_code == 404
    assert 'href="try"' not in client.get("/").text
