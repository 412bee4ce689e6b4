"""Tests of the documentation: commands, snippets and tables."""
