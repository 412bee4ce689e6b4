"""Fixtures of the tests in this folder."""

from tests.helpers.chromium import browser

__all__ = ["browser"]
