"""Tests of the image, and of the files in deploy/."""
