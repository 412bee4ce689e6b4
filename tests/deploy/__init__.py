"""Tests of the image and what is around it."""
