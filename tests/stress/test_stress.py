"""The trial, with small numbers: each scenario that holds on a busy machine, too."""

import pytest

from tests.stress.disk import full_disk
from tests.stress.fuzz import fuzzed_records
from tests.stress.hostile import hostile_requests
from tests.stress.overload import cold_start
from tests.stress.schema import described_requests
from tests.stress.service import new_home
from tests.stress.size import SHORT
from tests.stress.slow import slow_clients

SCENARIOS = [
    fuzzed_records,
    described_requests,
    hostile_requests,
    slow_clients,
    full_disk,
    cold_start,
]


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
