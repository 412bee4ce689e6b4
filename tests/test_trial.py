"""The trial, with small numbers: each scenario against the real service."""

import pytest

from trial.__main__ import SCENARIOS
from trial.service import new_home
from trial.size import SHORT


@pytest.fixture(scope="module")
def home(model):
    """A store with the model."""
    with new_home() as home:
        yield home


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_service_stands_the_trial(home, scenario):
    """All rows of the table say yes."""
    rows = list(scenario(home, SHORT))
    print(*rows, sep="\n")
    assert rows
    assert all(row.ok for row in rows)
