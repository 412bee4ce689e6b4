"""Fixtures of the tests in this folder."""

from tests.helpers.docker_fixtures import engine, image

__all__ = ["engine", "image"]
