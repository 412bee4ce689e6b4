"""Before and after serving: train a regressor, report on it, and look for drift."""

from training.cli import main
from training.project import ROOT, Estimator, Project

__all__ = ["ROOT", "Estimator", "Project", "main"]
