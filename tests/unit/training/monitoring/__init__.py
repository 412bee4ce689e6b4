"""Tests of `training.monitoring`."""
