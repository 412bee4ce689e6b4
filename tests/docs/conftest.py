"""Fixtures of the tests in this folder."""

from tests.helpers.chromium import browser
from tests.helpers.docker_fixtures import engine

__all__ = ["browser", "engine"]
