"""Tests of `serving._bentoml`."""
