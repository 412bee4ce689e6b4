"""The Swagger UI page as sent; tests/browser opens it in Chromium."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from serving.http.docs_page import SCRIPT

PREFIX = {"X-Forwarded-Prefix": "/prices/v1"}


def test_page_replaces_that_of_bentoml(client):
    """BentoML's page has another title, and loads Google Tag Manager."""
    page = client.get("/").text
    assert "<title>house_price</title>" in page
    assert "google" not in page
    assert "BentoML" not in page


def test_page_loads_only_relative_links_which_exist(client):
    """Behind a proxy that adds a path prefix, absolute links would fail."""
    links = re.findall(r'(?:href|src)="(.*?)"', client.get("/").text)
    assert len(links) == 4
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
        (
            {"Host": "10.0.0.7:3000", "X-Forwarded-Host": "houses.example", **PREFIX},
            "http://houses.example/prices/v1",
        ),
        (
            {"X-Forwarded-Host": "houses.example, inner", "X-Forwarded-Prefix": "/a/, /b"},
            "http://houses.example/a/b",
        ),
        ({"X-Forwarded-Host": "[2001:db8::1]:8080"}, "http://[2001:db8::1]:8080"),
        ({"X-Forwarded-Proto": "javascript"}, "http://testserver"),
        ({"X-Forwarded-Host": "a/b"}, "http://testserver"),
        ({"X-Forwarded-Host": "user@houses.example"}, "http://testserver"),
        ({"X-Forwarded-Prefix": "//other.example"}, "http://testserver"),
        ({"X-Forwarded-Prefix": "/a/../b"}, "http://testserver"),
        ({"X-Forwarded-Prefix": '/"<script>'}, "http://testserver"),
        ({"Host": '"<['}, "http://testserver"),
    ],
)
def test_openapi_document_has_the_address_that_the_client_uses(client, headers, address):
    """Proxies may terminate TLS or strip a prefix; invalid values are ignored."""
    response = client.get("/docs.json", headers=headers)
    assert response.status_code == 200
    assert response.json()["servers"] == [{"url": address}]


def test_openapi_document_is_not_cached(client):
    """A cache would send the address that one client uses to another."""
    assert client.get("/docs.json").headers["cache-control"] == "no-store"
