"""Records from hypothesis: valid ones are predicted as the model does, others are refused."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from house import House
from tests.stress.good import ask
from tests.stress.row import Row
from tests.stress.service import HOST, Home, serving
from tests.stress.size import Size

JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def feature_value(schema: dict[str, Any]) -> st.SearchStrategy[float]:
    """Return legal values of a feature, integers among them."""
    if "enum" in schema:
        return st.sampled_from([0, 1, 0.0, 1.0])
    low, high = schema.get("minimum", 0), schema.get("maximum")
    return st.floats(low, high, allow_infinity=False) | st.integers(low, int(high or 1e9))


PROPERTIES = House.model_json_schema()["properties"]
RECORDS = st.fixed_dictionaries({name: feature_value(s) for name, s in PROPERTIES.items()})
ILLEGAL = st.one_of(
    st.none(), st.booleans(), st.text(), st.lists(st.floats()), st.just({}), st.floats(max_value=-1)
)


@st.composite
def broken_records(draw: st.DrawFn) -> Any:
    """Return a record that is invalid: without a feature, with one more, or with a bad value."""
    record = dict(draw(RECORDS))
    name = draw(st.sampled_from(list(record)))
    how = draw(st.sampled_from(["missing", "unknown", "illegal", "other"]))
    if how == "missing":
        del record[name]
    elif how == "unknown":
        record[draw(st.text().filter(lambda text: text not in PROPERTIES))] = 1.0
    elif how == "illegal":
        record[name] = draw(ILLEGAL)
    else:
        return draw(JSON)
    return record


def fuzzed_records(home: Home, size: Size) -> Iterator[Row]:
    """Send valid records, arrays of them, and invalid ones."""
    with (
        serving(home) as service,
        closing(http.client.HTTPConnection(HOST, service.port, timeout=30)) as connection,
    ):
        post = partial(ask, connection)
        predicts = partial(is_predicted, home, post)
        refuses = partial(is_refused, post)
        target = "as the model predicts"
        yield tried("valid records", RECORDS, predicts, size.examples, target)
        arrays = st.lists(RECORDS, min_size=1, max_size=20)
        are_predicted = partial(all_predicted, home, post)
        yield tried("arrays of them", arrays, are_predicted, size.examples // 5, target)
        yield tried("mutated records", broken_records(), refuses, size.examples, "400")


def tried(
    what: str, values: st.SearchStrategy, holds: Callable[[Any], bool], count: int, target: str
) -> Row:
    """Try a property on so many values."""
    seen = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(values)
    def check(value: Any) -> None:
        seen.append(value)
        assert holds(value), value

    try:
        check()
        figure = ""
    except (AssertionError, ExceptionGroup) as error:
        figure = str(error)[:60]
    return Row(what, len(seen), bool(figure), figure, target, not figure)


def is_predicted(home: Home, post: Callable[..., Any], record: dict[str, float]) -> bool:
    """Tell whether a record gets the model's own prediction."""
    (expected,) = home.predict([record])
    return post(record) == [200, {"prediction": expected}]


def all_predicted(home: Home, post: Callable[..., Any], records: list[dict[str, float]]) -> bool:
    """Tell whether an array gets the model's own predictions."""
    expected = home.predict(records)
    return post(records, "/predict_batch") == [200, {"predictions": expected}]


def is_refused(post: Callable[..., Any], record: Any) -> bool:
    """Tell whether a record, alone and in an array, gets 400 with a reason."""
    answers = [post(record), post([record], "/predict_batch")]
    return all(status == 400 and list(answer) == ["message"] for status, answer in answers)
