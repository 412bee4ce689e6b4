"""The README shows commands with their output: they are run, and have to give it."""

import re
import shlex
from contextlib import ExitStack

from house import House
from serving.settings import Settings
from tests.helpers.commands import ROOT, running_server
from tests.helpers.console import SERVERS, check_output, console_commands

README = (ROOT / "README.md").read_text()


def rows(title, page=README):
    """Return the rows of the table whose first heading is `title`, as lists of cells."""
    table = re.search(rf"^\| {title} \|.*\n\|-.*\n((\|.*\n)+)", page, re.MULTILINE)[1]
    return [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in table.splitlines()]


def test_commands_give_the_output_that_is_shown(tmp_path):
    """From an empty model store, in the order of the page; a server runs until the next starts."""
    store = str(tmp_path / "store")
    with ExitStack() as server:
        port = "3000"
        for number, (command, expected) in enumerate(console_commands(README)):
            if command.startswith(SERVERS):
                server.close()
                client = running_server(
                    *shlex.split(command), log=tmp_path / str(number), BENTOML_HOME=store
                )
                port = str(server.enter_context(client).base_url.port)
            else:
                check_output(command, expected, port, BENTOML_HOME=store)


def test_quick_start_fits_on_a_screen():
    """The two commands and the answer come within 25 lines, and the page within 120."""
    lines = README.splitlines()
    assert '{"prediction": 12.273424794987879}' in lines[:25]
    assert len(lines) <= 120


def test_features_are_those_of_the_record_type():
    """With their meaning, unit and bounds."""
    expected = [
        [name, schema["description"], schema["unit"], bounds(schema)]
        for name, schema in House.model_json_schema()["properties"].items()
    ]
    assert rows("feature") == expected


def bounds(schema):
    """Return the bounds of a feature in words."""
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    most = schema.get("maximum")
    return f"{schema['minimum']} or more" if most is None else f"{schema['minimum']} to {most}"


def test_settings_are_those_of_the_code():
    """With their meaning and default."""
    fields = Settings.model_fields.items()
    expected = [[name.upper(), field.description, str(field.default)] for name, field in fields]
    assert rows("variable", (ROOT / "docs" / "settings.md").read_text()) == expected


def test_security_names_settings_that_exist():
    """Whoever relies on one must find it."""
    named = re.findall(r"`([A-Z_]+)`", (ROOT / "SECURITY.md").read_text())
    assert {name.lower() for name in named} < Settings.model_fields.keys()
