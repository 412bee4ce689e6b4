"""The page at `/`, as it is sent; what a browser makes of it is tested in test_browser.py."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from serving.http.docs_page import SCRIPT


def test_page_is_the_services_own(client):
    """BentoML's has another title and a script of Google's."""
    page = client.get("/").text
    assert "<title>house_price</title>" in page
    assert "google" not in page
    assert "BentoML" not in page


def test_all_that_the_page_loads_is_there(client):
    """From the service itself, by paths that a proxy may put a prefix before."""
    links = re.findall(r'(?:href|src)="(.*?)"', client.get("/").text)
    assert len(links) == 3
    for link in [*links, "docs.json"]:
        assert not link.startswith(("/", "http"))
        assert client.get(f"/{link}").status_code == 200


def test_page_may_contact_nobody_else(client):
    """And may run no script but its own, whatever a description or an answer holds."""
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
    ids=str,
)
def test_document_names_the_address_that_was_asked(client, headers, address):
    """Also behind a proxy that speaks TLS; what is no address does no harm."""
    answer = client.get("/docs.json", headers=headers)
    assert answer.status_code == 200
    assert address in (answer.json()["servers"][0]["url"], None)
