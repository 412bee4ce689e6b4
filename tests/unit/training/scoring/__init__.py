"""Tests of `training.scoring`."""
