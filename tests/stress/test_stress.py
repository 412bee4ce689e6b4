"""A short run of the scenarios that pass even on a busy machine."""

import pytest

from tests.stress.config import SHORT_RUN
from tests.stress.full_disk import full_disk
from tests.stress.openapi_conformance import openapi_conformance
from tests.stress.overload import cold_start
from tests.stress.record_fuzzing import record_fuzzing
from tests.stress.request_fuzzing import request_fuzzing
from tests.stress.resource_exhaustion import resource_exhaustion
from tests.stress.server import temporary_model_store
from tests.stress.unpredictable_records import unpredictable_records

pytestmark = pytest.mark.slow  # attacks a server of its own

SCENARIOS = [
    record_fuzzing,
    openapi_conformance,
    request_fuzzing,
    unpredictable_records,
    resource_exhaustion,
    full_disk,
    cold_start,
]


@pytest.fixture(scope="module")
def store(model):
    """A temporary model store with the trained model."""
    with temporary_model_store() as store:
        yield store


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_scenario_passes(store, scenario):
    """Every check of the scenario meets its target."""
    results = list(scenario(store, SHORT_RUN))
    print(*results, sep="\n")
    assert results
    assert all(result.ok for result in results)
