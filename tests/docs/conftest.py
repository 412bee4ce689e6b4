"""Fixtures of the tests in this folder."""

from tests.helpers.docker_fixtures import engine

__all__ = ["engine"]
