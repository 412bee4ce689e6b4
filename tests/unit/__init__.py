"""Tests that run in this process, or in short-lived child processes, except those marked slow."""
