"""Fixtures of the tests in this folder."""

import pytest

from tests.helpers.chromium import running_chromium
from tests.helpers.docker_fixtures import engine, image

__all__ = ["browser", "engine", "image"]


@pytest.fixture
def browser(tmp_path):
    """Chromium with an empty profile."""
    with running_chromium(tmp_path) as browser:
        yield browser
