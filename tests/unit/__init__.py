"""Tests in this process."""
