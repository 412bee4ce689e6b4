"""Fit the regressor, check it as the service will use it, save it, and report on it."""
