"""Tests of `serving.observability`."""
