"""What a worker does before it is ready."""

import math
from types import SimpleNamespace

import pytest

from service import HousePrice
from serving._bentoml.worker import prepare_instance


def make_apis(func):
    """Return the APIs of the service with another function."""
    return {
        name: SimpleNamespace(input_spec=api.input_spec, output_spec=api.output_spec, func=func)
        for name, api in HousePrice.apis.items()
    }


def test_worker_runs_each_api_on_a_golden_record_before_it_is_ready(model):
    """It does so from JSON to JSON."""
    calls = []

    def predict(instance, rows):
        calls.append(rows)
        return [1.0]

    instance = SimpleNamespace(model=model)
    prepare_instance(instance, make_apis(predict))
    assert calls == [[instance.golden_row]] * 2
    assert len(instance.golden_row) == len(HousePrice.inner.model.record_type.model_fields)


@pytest.mark.parametrize(
    "predictions",
    [[math.nan], [], [1.0, 1.0], ["1"], None],
    ids=["NaN", "none", "two", "text", "no list"],
)
def test_worker_with_an_api_that_fails_does_not_become_ready(model, predictions):
    """The exception ends the worker."""
    with pytest.raises((ValueError, TypeError)):
        prepare_instance(SimpleNamespace(model=model), make_apis(lambda *_: predictions))
