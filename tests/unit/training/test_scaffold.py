"""`make new`: what is inferred from a table, what is refused, and the files of the new bundle."""

import ast
import csv
import importlib.util
import json
import re
import sys
from datetime import date

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.features import check_record_type, feature_schemas
from serving.records import RequestBody
from tests.helpers.commands import ROOT, run
from tests.helpers.training_cli import run_training
from training.data import parse_csv
from training.errors import InvalidDataError
from training.scaffold.columns import infer_table
from training.scaffold.example import typical_record
from training.scaffold.files import UNCHANGED
from training.scaffold.review import review
from training.scaffold.table import MAX_BYTES, read_table

N_ROWS = 60
TARGET = 'y = f(x), "about" \\ 1'


@pytest.fixture
def infer(tmp_path):
    """A function that returns what is inferred from columns, given as lists of cells."""

    def infer(dropped=(), **columns):
        frame = {"y": [str(n * 7 % 31) for n in range(N_ROWS)]} | columns
        path = tmp_path / "table.csv"
        pd.DataFrame(frame).to_csv(path, index=False)
        return infer_table(read_table(path), "y", dropped)

    return infer


def cells(*values):
    """Return a column that repeats some cells."""
    return [values[n % len(values)] for n in range(N_ROWS)]


def numbered(template):
    """Return a column of different cells."""
    return [template.format(n) for n in range(N_ROWS)]


KINDS = {  # name, cells, kind, bounds, part of the reason
    "float": ("x", numbered("{}.5"), "number", (0, None), "none is negative"),
    "float of both signs": ("x", cells("-0.5", "1.5"), "number", (None, None), "negative"),
    "exponent": ("x", cells("1e-3", "2E+5"), "number", (0, None), ""),
    "whole floats": ("x", numbered("{}.0"), "number", (0, None), ""),
    "whole floats and a gap": ("x", [*numbered("{}.0")[1:], ""], "integer", (0, 10**9), "whole"),
    "integer": ("x", numbered("1{}"), "integer", (0, 10**9), "whole numbers"),
    "integer of both signs": ("x", cells("-3", "+4"), "integer", (-(10**9), 10**9), "negative"),
    "large integer": ("x", numbered("9{:015}"), "integer", (0, 2**53), "whole numbers"),
    "integer beyond floats": (
        "x",
        numbered("9{:019}"),
        "text",
        (None, None),
        "too large for exact floats",
    ),
    "flag": ("x", cells("0", "1", "1"), "integer", (0, 1), "a flag"),
    "share": ("share_of_women", cells("0.1", "0.4"), "number", (0, 1), "a share"),
    "share beyond 1": ("share", cells("0.1", "1.4"), "number", (0, None), "negative"),
    "percentage": ("PctHome", cells("10", "55.5"), "number", (0, 100), "a percentage"),
    "year": ("birth_year", cells("1970", "2001"), "integer", (1, 9999), "a year"),
    "sentences": ("x", cells("a" * 51, "b" * 51), "text", (None, None), "2 different values"),
    "no share": ("wage_per_hour", cells("5.5", "21.5"), "number", (0, None), "none is negative"),
    "camel case": ("HTTPYear", cells("1970", "2001"), "integer", (1, 9999), "a year"),
    "zeros before a point": ("x", cells("08.55", "1.5"), "number", (0, None), ""),
    "version": ("x", cells("1.2.3", "1.3.0"), "category", (None, None), ""),
    "full-width digits": ("x", numbered("\uff11{}"), "text", (None, None), ""),
    "latitude": ("lat", cells("48.1", "52.4"), "number", (-90, 90), "a latitude"),
    "boolean": ("x", cells("True", "false"), "boolean", (None, None), "true or false"),
    "category": ("x", cells("a", "b", "c"), "category", (None, None), "others are rejected"),
    "yes or no": ("x", cells("yes", "no"), "category", (None, None), "2 different values"),
    "code": ("x", cells("007", "011"), "category", (None, None), "leading zeros"),
    "text": ("x", numbered("street {}"), "text", (None, None), "60 different values"),
    "spaces around": ("x", cells(" 1.5", "2.5 "), "number", (0, None), ""),
}


@pytest.mark.parametrize(
    ("name", "column", "kind", "bounds", "reason"), KINDS.values(), ids=KINDS.keys()
)
def test_kind_and_bounds_are_inferred(infer, name, column, kind, bounds, reason):
    """Bounds are those of the kind, not those of the data."""
    (feature,) = infer(**{name: column}).features
    assert (feature.kind, (feature.minimum, feature.maximum)) == (kind, bounds)
    assert reason in feature.reason


@pytest.mark.parametrize("marker", ["", "NA", "nan", "NULL", "?", " "])
def test_missing_value_is_recognized(infer, marker):
    """It does not make a string of a number; the file that is written has an empty cell."""
    table = infer(x=cells("1.5", "2.5", marker))
    assert table.features[0].kind == "number"
    assert table.features[0].n_missing == N_ROWS // 3
    assert table.features[0].missing_markers == ((marker,) if marker.strip() else ())
    assert table.frame["x"].isna().sum() == N_ROWS // 3


@pytest.mark.parametrize(
    "day",
    [
        "2026-01-{}",
        "{}/1/2026",
        "{}.1.26",
        "2026-1-{} 12:30",
        "202601{:02}T000000",
        "Jan {} 1998",
        "{}-feb-99",
        "{}-02-2010",
        "2010.01.{}",
    ],
)
def test_dates_are_excluded(infer, day):
    """A record has no dates; the reason says what to do."""
    table = infer(x=[day.format(n % 28 + 1) for n in range(N_ROWS)], z=cells("1", "2"))
    assert [feature.name for feature in table.features] == ["z"]
    assert "such as the year or an age" in table.excluded["x"]


def test_row_numbers_and_empty_columns_are_excluded(infer):
    """Pandas writes its index as a column without a name."""
    table = infer(x=cells("1", "2"), empty=cells("", "NA"))
    assert table.excluded == {"empty": "it has no value in any row"}
    named = infer(**{"Unnamed: 0": numbered("{}"), "x": cells("1", "2")})
    assert list(named.excluded) == ["Unnamed: 0"]
    names = infer(**{"Unnamed: 0": numbered("n{}"), "x": cells("1")}, dropped=["Unnamed: 0"])
    assert names.excluded == {"Unnamed: 0": "named by DROP"}


def test_dropped_columns_are_excluded(infer):
    """The author decides."""
    table = infer(x=cells("1", "2"), z=cells("1", "2"), dropped=["x"])
    assert table.excluded == {"x": "named by DROP"}
    assert list(table.frame) == ["y", "z"]


def test_rows_without_a_target_are_counted_and_excluded(infer):
    """A gap that only such rows have makes no gap legal."""
    target = ["", "NA", *numbered("{}")[2:]]
    table = infer(y=target, x=["", *numbered("{}.5")[1:]])
    assert table.n_unlabelled == 2
    assert len(table.frame) == N_ROWS - 2
    assert table.features[0].n_missing == 0


REMARKS = {
    "constant": ({"x": cells("3")}, "x: has the same value in each row, '3'"),
    "camel case": ({"CustomerId": numbered("9{}3")}, "CustomerId: looks like an identifier"),
    "row number": ({"x": numbered("1{:02}")}, "x: looks like an identifier"),
    "identifier": ({"x": numbered("id-{}")}, "x: looks like an identifier"),
    "integer identifier": ({"house_id": numbered("9{}3")}, "house_id: looks like an identifier"),
    "date as integer": ({"x": cells("20260131", "20251201")}, "x: looks like dates"),
    "many missing values": ({"x": cells("1", "", "", "2", "")}, "x: is missing in 60% of the rows"),
    "leak of the target": (
        {"x": [str((n * 7 % 31) ** 2 / 4) for n in range(N_ROWS)]},
        "x: may leak the target (rank correlation 1.000)",
    ),
    "rare category": ({"x": ["rare", *cells("a", "b")[1:]]}, "x: only one row has 'rare'"),
    "named like an identifier": (
        {"Person ID": numbered("p{}")[:30] * 2},
        "looks like an identifier",
    ),
    "numbers among strings": ({"x": [*numbered("{}")[:30], *numbered("A{}")[30:]]}, "50% of its"),
}


@pytest.mark.parametrize(("columns", "remark"), REMARKS.values(), ids=REMARKS)
def test_suspicious_column_is_named(infer, columns, remark):
    """It stays a feature, for the author to look at."""
    assert any(remark in line for line in review(infer(**columns)))


def test_ordinary_columns_give_no_remark(infer):
    """A remark that is always there is not read."""
    table = infer(a=numbered("{}.5"), b=cells("1", "2", "3"), c=cells("x", "y"))
    assert review(table) == []
    assert review(infer(pool=cells("yes", ""))) == []
    few = infer(few=["1", "2", *cells("")[2:]])
    assert review(few) == ["few: is missing in 97% of the rows"]


def test_example_is_a_typical_row_without_gaps(infer):
    """Of the numbers the median, of the categories the most frequent, if one row has both."""
    table = infer(
        number=[*cells("1")[:29], "50", *cells("99")[30:]],
        category=["rare", *cells("usual")[1:]],
        gaps=["", *cells("true")[1:]],
    )
    assert typical_record(table) == {"number": 50, "category": "usual", "gaps": True}


def test_example_need_not_have_what_most_rows_lack(infer):
    """Otherwise a row would be typical because it has a comment."""
    table = infer(a=["99", *cells("1.5")[1:]], comment=["rare", *cells("")[1:]])
    assert typical_record(table) == {"a": 1.5, "comment": "rare"}


def test_example_is_composed_if_each_row_has_a_gap(infer):
    """The example has a value for each feature all the same."""
    table = infer(a=cells("1.5", ""), b=cells("", "x"))
    assert typical_record(table) == {"a": 1.5, "b": "x"}


def write(path, text, encoding="utf-8"):
    """Write a file, and return its path."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def table(header="x,y", row="{0}.5,{0}", n_rows=N_ROWS):
    """Return a CSV text."""
    return "\n".join([header, *(row.format(n) for n in range(n_rows))])


BAD_FILES = {  # name, content, message
    "no such file": ("missing.csv", None, "No such file"),
    "another format": ("table.xlsx", b"PK", "name ends with .csv or .parquet"),
    "empty": ("table.csv", "", "There is only one column"),
    "header only": ("table.csv", "x,y\n", "0 rows with y are too few: give 20"),
    "one row": ("table.csv", table(n_rows=1), "1 rows with y are too few"),
    "one column": ("table.csv", "y\n1\n2", "There is only one column"),
    "target without values": ("table.csv", table(row="{0},"), "0 rows with y are too few"),
    "target is text": (
        "table.csv",
        table(row="{0},a{0}"),
        "y has to be a number, not 'a0' in line 2",
    ),
    "target is constant": ("table.csv", table(row="{0},7"), "y has the same value in each row"),
    "target beyond floats": ("table.csv", table(row="{0},{0}e999"), "y in line 3 is greater than"),
    "no such target": ("table.csv", table("x,yy"), "There is no column 'y'. Is it"),
    "duplicate columns": ("table.csv", table("y,y"), "Several columns have the same name: y"),
    "first column without a name": ("table.csv", table(",y", "n{0},{0}"), "A column has no name"),
    "unnamed column": ("table.csv", table("x,,y", "{0},1,{0}"), "Column 2 has no name"),
    "only dates": ("table.csv", table(row="2026-01-01,{0}"), "No column is left"),
    "semicolons": ("table.csv", table("x;y", "{0},5;{0}"), "separated by ';'"),
    "tabs": ("table.csv", table("x\ty", "{0}\t{0}"), "separated by '\\t'"),
    "decimal commas": ("table.csv", table(row='"{0},5",{0}'), "x has numbers with a decimal comma"),
    "thousands": ("table.csv", table(row='"1,{0:03}",{0}'), "a separator of thousands"),
    "currency": ("table.csv", table(row="$ {0}.50,{0}"), "or a unit: '$ 0.50' in line 2"),
    "a typing error": ("table.csv", table() + "\n12.5x,3", "but not '12.5x' in line 62"),
    "infinite": ("table.csv", table() + "\ninf,3", "but not 'inf' in line 62"),
    "beyond floats": ("table.csv", table() + "\n1e999,3", "x in line 62 is greater than any float"),
    "latin-1": (
        "table.csv",
        table("x,y", "café,{0}").encode("latin-1"),
        "line 2: byte 0xe9 is not",
    ),
    "UTF-16": ("table.csv", table().encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
    "NUL": ("table.csv", table() + "\n\0,3", "line 62: there is a NUL character"),
    "long row": ("table.csv", table() + "\n1,2,3", "line 62: the row has 3 cells, the header 2"),
    "short row": ("table.csv", table() + "\n1", "line 62: the row has 1 cells"),
    "open quote": ("table.csv", table() + '\n"1,3', "line 62: unexpected end of data"),
    "name of the log": ("table.csv", table("prediction,y"), "prediction is a name that the"),
    "not Parquet": ("table.parquet", table(), "This is not a Parquet file that can be read"),
}


def new(path, out, *options, name="new_bundle", target="y"):
    """Run the command."""
    return run_training(
        "new", path, "--target", target, "--name", name, "--out", out, *options, check=False
    )


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_unusable_file_is_refused_with_a_sentence(tmp_path, name, content, message):
    """The message names the file, and where it can the line; nothing is written."""
    path = tmp_path / name if content is None else write(tmp_path / name, content)
    failed = new(path, tmp_path / "out")
    assert failed.returncode == 1
    assert failed.stderr.startswith("Nothing is written. ")
    assert message in failed.stderr
    assert name in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert [each.name for each in tmp_path.iterdir()] == [name] * (content is not None)


def test_file_that_is_too_large_is_refused_unread(tmp_path):
    """1 GB is refused by its size, in CSV and, where repeated values take no space, in Parquet."""
    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(2**30)
    assert "1,024 MiB are too many" in new(large, tmp_path / "out").stderr
    constant = pa.array([1.0]).take(pa.array([0] * (MAX_BYTES // 4 + 1)))
    pq.write_table(pa.table({"x": constant, "y": constant}), tmp_path / "constant.parquet")
    assert (tmp_path / "constant.parquet").stat().st_size < MAX_BYTES / 100
    assert "MiB are too many" in new(tmp_path / "constant.parquet", tmp_path / "out").stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Car-Price"}, "join two or more words"),
        ({"name": "class__x"}, "join two or more words"),
        ({"name": "x_" + "x" * 40}, "up to 40"),
        ({"name": "prices"}, "join two or more words"),
        ({"name": "record_body"}, "has another RecordBody: choose another name than record_body"),
        ({"name": "model_card"}, "service.py uses model_card for something else"),
        ({"name": "request_body"}, "uses request_body for something else"),
        ({"out": "full"}, "is not an empty folder"),
        ({"out": "full/file"}, "is not an empty folder"),
        ({"out": ROOT / "new"}, "is inside this bundle"),
        ({"drop": "z"}, "There is no column 'z'"),
        ({"drop": "y"}, "y is the target: it can't be dropped"),
        ({"drop": "x"}, "No column is left"),
    ],
)
def test_unusable_option_is_refused_with_a_sentence(tmp_path, options, message):
    """Nothing is written, and what is there stays."""
    path = write(tmp_path / "table.csv", table())
    (tmp_path / "full").mkdir()
    write(tmp_path / "full/file", "precious")
    drop = ["--drop", options["drop"]] if "drop" in options else []
    out = tmp_path / options.get("out", "out")
    failed = new(path, out, *drop, name=options.get("name", "new_bundle"))
    assert failed.returncode in (1, 2)
    assert message in failed.stderr
    assert (tmp_path / "full/file").read_text() == "precious"
    assert {each.name for each in tmp_path.iterdir()} == {"table.csv", "full"}
    assert not (ROOT / "new").exists()


def test_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    """Neither a half bundle nor a temporary folder."""

    def fail(folder):
        raise OSError("No space left on device")

    monkeypatch.setattr("training.scaffold.files.remove_dead_links", fail)
    failed = new(write(tmp_path / "table.csv", table()), tmp_path / "out")
    assert failed.stderr == "Nothing is written. No space left on device\n"
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]


def test_parquet_gives_what_csv_gives(tmp_path):
    """A column of floats stays one, also if its values are whole."""
    frame = pd.DataFrame(
        {
            "float": [float(n) for n in range(N_ROWS)],
            "gaps": [None if n % 5 == 0 else float(n) for n in range(N_ROWS)],
            "integer": range(N_ROWS),
            "boolean": cells(True, False),
            "category": pd.Categorical(cells("a", "b", "NA")),
            "text": numbered("text {}"),
            "day": [date(2026, 1, n % 28 + 1) for n in range(N_ROWS)],
            "y": [n * 0.1 for n in range(N_ROWS)],
        }
    )
    frame.to_parquet(tmp_path / "table.parquet", index=True)
    frame.to_csv(tmp_path / "table.csv", index=True)
    one, other = (
        infer_table(read_table(tmp_path / name), "y", []) for name in ("table.parquet", "table.csv")
    )
    assert one.features == other.features
    assert [feature.kind for feature in one.features] == [
        "number", "integer", "integer", "boolean", "category", "text",
    ]  # fmt: skip
    assert "day" in one.excluded
    other.frame["boolean"] = other.frame["boolean"].str.lower()
    pd.testing.assert_frame_equal(one.frame, other.frame)


def test_nested_parquet_column_is_excluded(tmp_path):
    """A feature is one value, and so is the target."""
    table = pa.table({"x": [[1, 2]] * N_ROWS, "z": range(N_ROWS), "y": range(N_ROWS)})
    pq.write_table(table, tmp_path / "t.parquet")
    table = infer_table(read_table(tmp_path / "t.parquet"), "y", ["x"])
    assert table.excluded["x"].startswith("values of the type list")
    with pytest.raises(InvalidDataError, match="The target x can't be predicted: values of the"):
        infer_table(read_table(tmp_path / "t.parquet"), "x", [])


# Names and values that Python, pydantic or JSON may take for something else.
AWKWARD = {
    "class": numbered("{}.5"),
    "float": numbered("{}.5"),
    "feature": cells("a", "b"),
    "Literal": cells("true", "false"),
    "copy": numbered("{}.5"),
    "model_fields": numbered("{}.5"),
    "model_year": numbered("{}.5"),
    "_private": numbered("{}.5"),
    "1st floor, m²": numbered("{}.5"),
    "a b": numbered("{}.5"),
    "a.b": numbered("{}.5"),
    "a_b": cells(
        "it's",
        'a "quoted" one',
        "5'11\"",
        "lone\rreturn",
        "back\\slash",
        "line\nbreak",
        "{{ jinja }}",
        "ünï\u2013código",
    ),
    "größe": numbered("{}.5"),
    "weight (kg)": numbered("{}.5"),
    "价格": cells("", "true", "false"),
    '"': cells("-1", "1", ""),
    "NAME": numbered("text {}"),
    "Record": cells("x" * 60, "y" * 60),
}


@pytest.fixture(scope="module")
def awkward_bundle(tmp_path_factory):
    """A bundle of a table with awkward names and values."""
    path = tmp_path_factory.mktemp("awkward")
    target = {TARGET: numbered("{}.25")}
    awkward = pd.DataFrame(AWKWARD | target)
    awkward.to_csv(path / "table.csv", index=False, quoting=csv.QUOTE_ALL)
    done = new(path / "table.csv", path / "out", name="house_value", target=TARGET)
    assert done.returncode == 0, done.stderr
    return path / "out"


def load(path, name):
    """Import a module from a file."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_awkward_names_and_values_survive(awkward_bundle):
    """The JSON names are those of the file, in its order; the example is a valid record."""
    module = load(awkward_bundle / "record.py", "awkward_record")
    check_record_type(module.LabelledRecord, TARGET)
    assert list(feature_schemas(module.Record)) == list(AWKWARD)
    assert feature_schemas(module.Record)["a_b"]["enum"] == sorted(
        {text.replace("\r", "\n") for text in AWKWARD["a_b"]}
    )

    class Body(RequestBody):
        record_type = module.Record

    assert Body.parse(json.dumps(module.EXAMPLE).encode())
    data = (awkward_bundle / "data/house_value.csv").read_text()
    assert len(parse_csv(data, module.LabelledRecord)) == N_ROWS


def test_unit_is_taken_from_the_name(awkward_bundle):
    """`Body Mass (g)` is a mass in g."""
    schema = feature_schemas(load(awkward_bundle / "record.py", "unit_record").Record)
    assert schema["weight (kg)"]["unit"] == "kg"
    assert schema["weight (kg)"]["description"] == "Weight"


def test_new_bundle_is_formatted_and_has_no_lint(awkward_bundle):
    """`make lint` of the new bundle begins with these."""
    run("ruff", "check", "--no-cache", ".", cwd=awkward_bundle)
    run("ruff", "format", "--no-cache", "--check", ".", cwd=awkward_bundle)


def test_serving_and_training_are_copied_unchanged(awkward_bundle):
    """So that an upgrade is to copy both folders."""
    for folder in UNCHANGED:
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        shared = [path for path in files if "__pycache__" not in path.parts]
        assert len(shared) > 20
        for path in shared:
            assert (awkward_bundle / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


def test_new_bundle_has_its_own_name_everywhere(awkward_bundle):
    """No word is left of the houses that this bundle is about."""
    pages = [
        path
        for path in awkward_bundle.rglob("*")
        if path.is_file()
        and path.relative_to(awkward_bundle).parts[0] not in ("serving", "training")
    ]
    words = re.compile(r"(?i)house_price|house-price|housep|\bhouses?\b(?!.value)|boston")
    found = {path.name: words.findall(path.read_text(encoding="utf-8")) for path in pages}
    assert {name: words for name, words in found.items() if words} == {}
    assert "class HouseValue:" in (awkward_bundle / "service.py").read_text()
    assert (
        "job_name: house_value"
        in (awkward_bundle / "deploy/prometheus/prometheus.yaml").read_text()
    )
    assert "name: house-value" in (awkward_bundle / "deploy/kubernetes/service.yaml").read_text()


def test_makefile_has_only_the_targets_of_a_bundle(awkward_bundle):
    """Those whose files it has not are at the end of this repository's."""
    makefile = (awkward_bundle / "Makefile").read_text()
    assert (ROOT / "Makefile").read_text().splitlines()[3:10] == makefile.splitlines()[3:10]
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {"serve", "train", "test", "lint", "score", "new", "image", "lock"} <= targets
    assert not {"bench", "stress", "test-slow"} & targets
    assert makefile.endswith("@touch $@\n")


def test_new_service_differs_only_in_names_and_docstrings(awkward_bundle):
    """It is the service of this bundle."""
    assert code_lines(awkward_bundle / "service.py") == [
        line.replace("HousePrice", "HouseValue")
        .replace("House", "Record")
        .replace("RecordValue", "HouseValue")
        .replace("from house", "from record")
        for line in code_lines(ROOT / "service.py")
    ]


def code_lines(path):
    """Return the lines of a module without docstrings and comments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree).splitlines()


def test_bundle_writes_a_bundle(awkward_bundle, tmp_path):
    """A bundle that was written has the command, too."""
    path = write(tmp_path / "table.csv", table())
    command = ["-m", "training", "new", path, "--target", "y", "--name", "other_price"]
    run("python", *command, "--out", tmp_path / "out", cwd=awkward_bundle)
    assert "class OtherPrice:" in (tmp_path / "out/service.py").read_text()
    files = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*")}
    expected = {path.relative_to(awkward_bundle) for path in awkward_bundle.rglob("*")}
    renamed = {path for path in files ^ expected if "__pycache__" not in path.parts}
    assert {path.name for path in renamed} == {"house_value.csv", "other_price.csv"}


def test_links_of_the_pages_lead_somewhere(awkward_bundle):
    """A link to a page that only this bundle has is replaced by its text."""
    for page in awkward_bundle.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
