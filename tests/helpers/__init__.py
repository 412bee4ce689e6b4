"""Helpers that several test modules import; fixtures are in tests/conftest.py."""
