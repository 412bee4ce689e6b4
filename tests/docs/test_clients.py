"""docs/clients.md: examples that can run on Linux give the output that the page shows."""

import json
import re
from doctest import DocTestParser, DocTestRunner

import mslex
import pytest

from house import EXAMPLE
from tests.helpers.commands import ROOT, run
from tests.helpers.tutorial import TUTORIAL_PREDICTION

PAGE = (ROOT / "docs" / "clients.md").read_text()


def code_block(language):
    """Return the only code block of the page in a language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return text


def use_server(text, client):
    """Return an example with the address replaced by that of a running server."""
    return text.replace("http://127.0.0.1:3000", str(client.base_url))


def test_page_is_short():
    """A reader can find the example for one client quickly."""
    assert len(PAGE.splitlines()) <= 80


def test_curl_in_bash(live):
    """The command runs in bash."""
    command, expected = code_block("console").removeprefix("$ ").splitlines()
    assert run("bash", "-c", use_server(command, live)).stdout == expected
    assert json.loads(expected)["prediction"] == TUTORIAL_PREDICTION


def test_curl_in_cmd(live):
    """Split the command as cmd and the C runtime of Windows do."""
    command, expected = code_block("bat").removeprefix("C:\\> ").splitlines()
    assert run(*mslex.split(use_server(command, live), like_cmd=True)).stdout == expected
    assert json.loads(expected)["prediction"] == TUTORIAL_PREDICTION


def test_powershell_body_is_the_example():
    """PowerShell is not installed: only the body and the shown prediction are checked."""
    body = re.search("'(.*)'", code_block("powershell"))[1]
    assert json.loads(body) == EXAMPLE
    assert float(code_block("powershell").splitlines()[-1]) == TUTORIAL_PREDICTION


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_python_session(live):
    """Run the session line by line."""
    session = DocTestParser().get_doctest(
        use_server(code_block("pycon"), live), {}, "page", None, 0
    )
    failures = []
    DocTestRunner().run(session, out=failures.append)
    assert not failures, "".join(failures)
