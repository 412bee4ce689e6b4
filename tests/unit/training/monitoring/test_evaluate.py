"""The evaluate command, on logs of the trained model."""

import numpy as np
import pandas as pd
from matplotlib.image import imread

from house import FEATURES, LabelledHouse
from tests.helpers.logs import write_log
from tests.helpers.training_cli import check_error, run_training
from train import PROJECT
from training.data import parse_csv, to_rows
from training.monitoring.served_error import MIN_OUTCOMES

N_ROWS = 2000
SEGMENT = "PTRATIO up to 17.4"  # its lowest quarter


def write_case(folder, table, record_type, change=None, n_rows=N_ROWS, **options):
    """Log true values plus noise and a change as predictions; write the true values as outcomes."""
    generator = np.random.default_rng(0)
    sample = table.iloc[generator.integers(len(table), size=n_rows)]
    X, target = sample.iloc[:, :-1], sample.columns[-1]
    predictions = sample[target] + generator.normal(size=n_rows)
    if change:
        predictions += change(X)
    rows = to_rows(X, record_type)
    requests = [([row], [prediction]) for row, prediction in zip(rows, predictions, strict=True)]
    ids = write_log(folder, list(X), requests, **options)
    outcomes = pd.DataFrame({"request_id": ids, target: sample[target].to_numpy()})
    outcomes.to_csv(folder / "actual.csv", index=False)
    return folder


def houses():
    """Return the training data of the houses."""
    return parse_csv(PROJECT.data.read_text(), LabelledHouse)


def run_evaluate(folder, *options):
    """Run `python -m training evaluate` on the log and the outcomes in a folder."""
    files = ("--outcomes", folder / "actual.csv", "--output", folder / "error.png")
    return run_training("evaluate", folder, *files, *options, check=False)


def test_model_that_is_worse_in_a_segment_ends_with_3(model, tmp_path):
    """That segment is named first. The plot is a PNG with many colours."""
    change = lambda X: np.where(X["PTRATIO"] <= 17.4, 9, 0)  # noqa: E731
    write_case(tmp_path, houses(), PROJECT.record_type, change, tag=str(model.tag))
    done = run_evaluate(tmp_path)
    assert done.returncode == 3, done.stderr
    assert f"worse in {SEGMENT}: mean absolute error " in done.stdout
    table = done.stdout.partition(" by segment, the worst ")[2].splitlines()
    assert table[2].startswith(SEGMENT)
    pixels = imread(tmp_path / "error.png", format="png")
    assert pixels.shape[1] > 1000
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 10


def test_model_as_good_as_in_training_ends_with_0(model, tmp_path):
    """Another model in the log gets its own row."""
    write_case(tmp_path, houses(), PROJECT.record_type, tag=str(model.tag))
    write_log(tmp_path, FEATURES, [([[1.0] * 13], [99])], tag="house_price:old", worker_index=2)
    done = run_evaluate(tmp_path, "--model", "house_price:latest")
    assert done.returncode == 0, done.stderr
    assert "OK: in no segment is the mean absolute error significantly above" in done.stdout
    assert f"{N_ROWS:,} (100.0%) have an outcome" in done.stdout
    (old,) = [line for line in done.stdout.splitlines() if line.startswith("house_price:old")]
    assert old.split()[1:4] == ["1", "0", "-"]


def test_too_few_outcomes_get_no_verdict(model, tmp_path):
    """However large the errors are."""
    write_case(
        tmp_path, houses(), PROJECT.record_type, lambda X: 99, MIN_OUTCOMES - 1, tag=str(model.tag)
    )
    done = run_evaluate(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Too few: {MIN_OUTCOMES - 1} outcomes of {model.tag}" in done.stdout


def test_joined_rows_are_training_data(model, tmp_path):
    """Invalid rows are excluded and counted. A record may be predicted repeatedly."""
    write_case(tmp_path, houses(), PROJECT.record_type, n_rows=40, tag=str(model.tag))
    path = tmp_path / "actual.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].split(",")[0] + ",-5"
    path.write_text("\n".join(lines))
    done = run_evaluate(tmp_path, "--write", tmp_path / "training.csv")
    assert f"Wrote 39 rows to {tmp_path / 'training.csv'}" in done.stdout
    assert "Excluded 1 that do not match LabelledHouse: MEDV should be greater" in done.stdout
    frame = parse_csv((tmp_path / "training.csv").read_text(), LabelledHouse)
    expected = houses()
    assert (
        frame.drop_duplicates().merge(expected, "left", indicator=True)["_merge"].eq("both").all()
    )


def test_training_data_are_not_overwritten(model, tmp_path):
    """The command stops with a message."""
    write_case(tmp_path, houses(), PROJECT.record_type, n_rows=40, tag=str(model.tag))
    before = PROJECT.data.read_bytes()
    done = run_evaluate(tmp_path, "--write", PROJECT.data)
    check_error(done, "write to another file", has_output=True)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(before)
    done = run_evaluate(tmp_path, "--data", copy, "--write", copy)
    check_error(done, "write to another file", has_output=True)
    assert PROJECT.data.read_bytes() == copy.read_bytes() == before


def test_outcomes_of_other_requests_are_rejected(model, tmp_path):
    """For example if their IDs are those of another system."""
    write_case(tmp_path, houses(), PROJECT.record_type, n_rows=40, tag=str(model.tag))
    (tmp_path / "actual.csv").write_text("request_id,MEDV\n17,20\n")
    check_error(run_evaluate(tmp_path), "no outcome matches a logged prediction", "(17 record 0)")


def test_model_without_predictions_is_reported(model, tmp_path):
    """So is a model that the store lacks."""
    write_case(tmp_path, houses(), PROJECT.record_type, n_rows=40, tag="house_price:old")
    check_error(run_evaluate(tmp_path), "The model store has no house_price:old")
    check_error(run_evaluate(tmp_path, "--model", str(model.tag)), f"no predictions of {model.tag}")


def test_missing_file_is_reported(model, tmp_path):
    """In one line."""
    write_case(tmp_path, houses(), PROJECT.record_type, n_rows=40, tag=str(model.tag))
    check_error(run_evaluate(tmp_path, "--outcomes", tmp_path / "nowhere.csv"), "nowhere.csv")
    check_error(run_evaluate(tmp_path / "nowhere"), "There is no folder")
