"""Tests of `serving.http`."""
