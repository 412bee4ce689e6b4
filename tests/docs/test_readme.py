"""README.md, docs/settings.md and SECURITY.md agree with the code; commands give their output."""

import re
import shlex
from contextlib import ExitStack

from house import House
from serving.settings import Settings
from tests.helpers.commands import ROOT, running_server
from tests.helpers.console_blocks import SERVERS, check_output, console_commands

README = (ROOT / "README.md").read_text()


def table_rows(title, page=README):
    """Return the rows of the table whose first heading is `title`, as lists of cells."""
    table = re.search(rf"^\| {title} \|.*\n\|-.*\n((\|.*\n)+)", page, re.MULTILINE)[1]
    return [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in table.splitlines()]


def test_commands_give_the_shown_output(tmp_path):
    """Replay the page from an empty model store; a server runs until the next one starts."""
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
    """The response to the example is in the first 25 lines; the page has at most 120."""
    lines = README.splitlines()
    assert '{"prediction": 12.273424794987879}' in lines[:25]
    assert len(lines) <= 120


def test_feature_table_matches_the_record_type():
    """The description, unit and bounds of each feature are those of `House`."""
    expected = [
        [name, schema["description"], schema["unit"], bounds(schema)]
        for name, schema in House.model_json_schema()["properties"].items()
    ]
    assert table_rows("feature") == expected


def bounds(schema):
    """Return the bounds of a feature as the table writes them."""
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    maximum = schema.get("maximum")
    if maximum is None:
        return f"{schema['minimum']} or more"
    return f"{schema['minimum']} to {maximum}"


def test_settings_table_matches_the_settings():
    """The description and default of each variable are those of `Settings`."""
    fields = Settings.model_fields.items()
    expected = [[name.upper(), field.description, str(field.default)] for name, field in fields]
    assert table_rows("variable", (ROOT / "docs" / "settings.md").read_text()) == expected


def test_security_page_names_only_existing_settings():
    """Each variable that SECURITY.md mentions is a field of `Settings`."""
    names = re.findall(r"`([A-Z_]+)`", (ROOT / "SECURITY.md").read_text())
    assert {name.lower() for name in names} < Settings.model_fields.keys()
