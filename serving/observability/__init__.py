"""Metrics, access log and prediction log."""
