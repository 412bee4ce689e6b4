"""The list of overrides in the docstring of `serving._bentoml` agrees with code and benchmark."""

import re
from importlib import import_module

from serving import _bentoml
from tests.helpers.commands import ROOT

OVERRIDES = re.findall(r"^(\S.*)\n    by: (.*)\n    why: ", _bentoml.__doc__, re.MULTILINE)


def test_each_override_names_existing_code():
    """A module of the package, and perhaps a class or function, of it or of another module."""
    assert len(OVERRIDES) == _bentoml.__doc__.count("\n    until: ")
    for _, by in OVERRIDES:
        file, _, name = by.partition(", ")
        module = import_module(f"serving._bentoml.{file.removesuffix('.py')}")
        if name:
            resolve(module, name.strip("`"))


def resolve(module, name):
    """Return what a dotted name means: from `serving`, or an attribute of a module."""
    if name.startswith("serving."):
        path, _, name = name.rpartition(".")
        module = import_module(path)
    for part in name.split("."):
        module = getattr(module, part)
    return module


def test_cpu_times_are_those_of_the_benchmark():
    """Each is a row of the table in benchmarks/README.md: at 64 connections, and at 1."""
    text = (ROOT / "benchmarks" / "README.md").read_text()
    measured = re.findall(r"\| (\d\.\d\d) \(.*?\) \| (\d\.\d\d) \(.*?\) \|$", text, re.MULTILINE)
    figures = re.findall(r"(\d+\.\d\d), (\d+\.\d\d)", _bentoml.__doc__)
    assert len(figures) == 6  # one in the explanation of "CPU"
    assert set(figures) <= set(measured)
