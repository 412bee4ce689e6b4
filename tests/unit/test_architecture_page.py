"""docs/architecture.md agrees with the files and with the layers in pyproject.toml."""

import re
import tomllib

from tests.helpers.commands import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_each_path_on_the_page_exists():
    """Files and folders are written with their whole path."""
    words = re.findall(r"`([\w./-]+)`", PAGE)
    paths = [word for word in words if word.endswith((".py", ".yaml", ".sh")) or word[-1] == "/"]
    paths = [path for path in paths if not path.startswith("/")]  # a URL
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_layers_are_those_that_the_linter_enforces():
    """In the order of pyproject.toml."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    layers = tools["importlinter"]["contracts"][0]["layers"]
    assert "\n".join(["```", *layers, "```"]) in PAGE
