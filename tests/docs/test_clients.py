"""docs/clients.md: what can run here is run from the page, and has to give what it shows."""

import json
import re
from doctest import DocTestParser, DocTestRunner

import mslex
import pytest

from house import EXAMPLE
from tests.helpers.commands import ROOT, TUTORIAL_PREDICTION, run

PAGE = (ROOT / "docs" / "clients.md").read_text()


def block(language):
    """Return the one block of a language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return text


def here(text, client):
    """Return a text for the address of this server."""
    return text.replace("http://127.0.0.1:3000", str(client.base_url))


def test_page_is_short():
    """Who looks for one client finds it."""
    assert len(PAGE.splitlines()) <= 80


def test_curl_in_a_shell(live):
    """As bash takes it."""
    command, shown = block("console").removeprefix("$ ").splitlines()
    assert run("bash", "-c", here(command, live)).stdout == shown
    assert json.loads(shown)["prediction"] == TUTORIAL_PREDICTION


def test_curl_in_cmd(live):
    """With the arguments that cmd and the C runtime of Windows make of it."""
    command, shown = block("bat").removeprefix("C:\\> ").splitlines()
    assert run(*mslex.split(here(command, live), like_cmd=True)).stdout == shown
    assert json.loads(shown)["prediction"] == TUTORIAL_PREDICTION


def test_body_in_powershell():
    """There is none here: at least the body is the example."""
    body = re.search("'(.*)'", block("powershell"))[1]
    assert json.loads(body) == EXAMPLE
    assert float(block("powershell").splitlines()[-1]) == TUTORIAL_PREDICTION


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_python(live):
    """Line by line, in one session."""
    session = DocTestParser().get_doctest(here(block("pycon"), live), {}, "page", None, 0)
    told = []
    DocTestRunner().run(session, out=told.append)
    assert not told, "".join(told)
