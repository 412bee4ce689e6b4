"""Property-based test of the predictions, with valid and invalid records from hypothesis."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from house import House
from tests.stress.config import StressConfig
from tests.stress.reference_client import post_json
from tests.stress.result import Result
from tests.stress.server import HOST, ModelStore, run_server

Post = Callable[..., list[Any]]  # `post_json` with its connection

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def feature_values(schema: dict[str, Any]) -> st.SearchStrategy[float]:
    """Return a strategy for valid values of a feature, both floats and integers."""
    if "enum" in schema:
        return st.sampled_from([0, 1, 0.0, 1.0])
    low, high = schema.get("minimum", 0), schema.get("maximum")
    return st.floats(low, high, allow_infinity=False) | st.integers(low, int(high or 1e9))


PROPERTIES = House.model_json_schema()["properties"]
RECORDS = st.fixed_dictionaries({name: feature_values(s) for name, s in PROPERTIES.items()})
INVALID_VALUES = st.one_of(
    st.none(), st.booleans(), st.text(), st.lists(st.floats()), st.just({}), st.floats(max_value=-1)
)


@st.composite
def invalid_records(draw: st.DrawFn) -> Any:
    """Return a record with a missing, unknown or invalid feature, or another JSON value."""
    record = dict(draw(RECORDS))
    name = draw(st.sampled_from(list(record)))
    defect = draw(st.sampled_from(["missing", "unknown", "invalid", "not a record"]))
    if defect == "missing":
        del record[name]
    elif defect == "unknown":
        record[draw(st.text().filter(lambda text: text not in PROPERTIES))] = 1.0
    elif defect == "invalid":
        record[name] = draw(INVALID_VALUES)
    else:
        return draw(JSON_VALUES)
    return record


def record_fuzzing(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Send valid records, arrays of valid records, and invalid records."""
    with (
        run_server(store) as server,
        closing(http.client.HTTPConnection(HOST, server.port, timeout=30)) as connection,
    ):
        post = partial(post_json, connection)
        examples = config.hypothesis_examples
        target = "the model's prediction"
        is_predicted = partial(is_record_predicted, store, post)
        yield check_property("valid records", RECORDS, is_predicted, examples, target)
        arrays = st.lists(RECORDS, min_size=1, max_size=20)
        is_predicted = partial(is_array_predicted, store, post)
        yield check_property("arrays of valid records", arrays, is_predicted, examples // 5, target)
        is_rejected = partial(is_record_rejected, post)
        yield check_property("invalid records", invalid_records(), is_rejected, examples, "400")


def check_property(
    check: str,
    strategy: st.SearchStrategy,
    predicate: Callable[[Any], bool],
    max_examples: int,
    target: str,
) -> Result:
    """Return the result of a predicate on generated examples, with the first counterexample."""
    examples = []

    @settings(
        max_examples=max_examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(example: Any) -> None:
        examples.append(example)
        assert predicate(example), example

    try:
        run()
        counterexample = ""
    except (AssertionError, ExceptionGroup) as error:
        counterexample = str(error)[:60]
    failed = bool(counterexample)
    return Result(check, len(examples), failed, counterexample, target, not failed)


def is_record_predicted(store: ModelStore, post: Post, record: dict[str, float]) -> bool:
    """Return whether the response to a record is the model's prediction."""
    (expected,) = store.predict([record])
    return post(record) == [200, {"prediction": expected}]


def is_array_predicted(store: ModelStore, post: Post, records: list[dict[str, float]]) -> bool:
    """Return whether the response to an array is the model's predictions, in order."""
    expected = store.predict(records)
    return post(records, "/predict_batch") == [200, {"predictions": expected}]


def is_record_rejected(post: Post, record: Any) -> bool:
    """Return whether a record, both alone and in an array, gets 400 with a message."""
    responses = [post(record), post([record], "/predict_batch")]
    return all(status == 400 and list(body) == ["message"] for status, body in responses)
