"""Copies of this repository and other bundles, for tests that run their commands."""

import os
import shutil

from tests.helpers.commands import ROOT

EXCLUDED = shutil.ignore_patterns(".venv*", ".git", "__pycache__", ".*_cache")


def clone_repository(path):
    """Copy this repository to a folder that does not exist, and share the .venv."""
    shutil.copytree(ROOT, path, ignore=EXCLUDED)
    share_venv(path)


def share_venv(bundle):
    """Give a bundle the .venv of this one; old locks keep make from installing into it."""
    (bundle / ".venv").symlink_to(ROOT / ".venv")
    for lock in bundle.rglob("requirements*.txt"):
        os.utime(lock, (0, 0))
