"""Tests of the pages of the service in Chromium."""
