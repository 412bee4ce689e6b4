"""The command line around serving: train and report on a model, monitor it, score files."""

from training.cli import main
from training.project import ROOT, Estimator, Project

__all__ = ["ROOT", "Estimator", "Project", "main"]
