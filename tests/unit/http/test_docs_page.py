"""The Swagger UI page as sent; tests/deploy/test_browser.py opens it in a browser."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from serving.http.docs_page import SCRIPT


def test_page_is_not_that_of_bentoml(client):
    """BentoML's page has another title, and loads Google Tag Manager."""
    page = client.get("/").text
    assert "<title>house_price</title>" in page
    assert "google" not in page
    assert "BentoML" not in page


def test_page_loads_only_relative_links_which_exist(client):
    """Behind a proxy that adds a path prefix, absolute links would fail."""
    links = re.findall(r'(?:href|src)="(.*?)"', client.get("/").text)
    assert len(links) == 3
    for link in [*links, "docs.json"]:
        assert not link.startswith(("/", "http"))
        assert client.get(f"/{link}").status_code == 200


def test_content_security_policy_allows_only_the_service(client):
    """Only the page's own scripts may run, whatever a description or a response contains."""
    policy = client.get("/").headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    digest = b64encode(sha256(SCRIPT.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "style-src": "'self'",
        "script-src": f"'self' 'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({"Host": "houses.example:8080"}, "http://houses.example:8080"),
        ({"Host": "houses.example", "X-Forwarded-Proto": "https"}, "https://houses.example"),
        ({"Host": "houses.example", "X-Forwarded-Proto": "https, http"}, "https://houses.example"),
        ({"Host": '"<['}, None),
    ],
    ids=["no proxy", "TLS proxy", "two proxies", "invalid Host"],
)
def test_openapi_document_has_the_address_of_the_request(client, headers, address):
    """Also behind a proxy that terminates TLS. An invalid Host causes no error."""
    response = client.get("/docs.json", headers=headers)
    assert response.status_code == 200
    assert address in (response.json()["servers"][0]["url"], None)
