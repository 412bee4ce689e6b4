"""The drift command, on logs that the prediction log wrote for the trained model."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from house import FEATURES, House, LabelledHouse
from serving.regressor import Regressor
from tests.helpers.logs import write_log
from tests.helpers.training_cli import check_error, run_training
from train import PROJECT
from training.data import parse_csv, split_train_test
from training.errors import InvalidLogError
from training.monitoring.drift import (
    BINS,
    MIN_LOG_ROWS,
    compare,
    convert_types,
    plot_columns,
    read_log,
    stability_index,
)

N_ROWS = MIN_LOG_ROWS + 100
STABLE = dict.fromkeys((*FEATURES, "prediction"), "stable")


def log_predictions(folder, model, tag=None, n_rows=N_ROWS, **shifts):
    """Log predictions for houses that are drawn from the training part; shift some features."""
    X_train = split_train_test(
        parse_csv(PROJECT.data.read_text(), LabelledHouse)
    ).X_train.to_numpy()
    rows = X_train[np.random.default_rng(0).integers(len(X_train), size=n_rows)]
    for name, shift in shifts.items():
        rows[:, FEATURES.index(name)] += shift
    requests = [(rows.tolist(), Regressor(model).predict(rows))]
    write_log(folder, FEATURES, requests, tag=tag or str(model.tag))
    return folder


def run_drift(folder, *options):
    """Run `python -m training drift` on the log in a folder; write the plot there."""
    output = ("--output", folder / "drift.png")
    return run_training("drift", folder, *output, *options, check=False)


def verdicts(done):
    """Return the verdict on each feature and on the prediction, from the printed table."""
    rows = [line.split(maxsplit=5) for line in done.stdout.splitlines()]
    return {row[0]: row[5] for row in rows if row[0] in STABLE}


def test_log_like_the_training_data_is_stable(model, tmp_path):
    """In each feature and in the prediction. The plot is a PNG with more than three colours."""
    done = run_drift(log_predictions(tmp_path, model))
    assert done.returncode == 0, done.stderr
    assert verdicts(done) == STABLE
    pixels = imread(tmp_path / "drift.png", format="png")
    height, width, _ = pixels.shape
    assert (height > 500, width > 1000) == (True, True)
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 3


def test_only_the_shifted_feature_drifts(model, tmp_path):
    """The prediction stays stable: TAX matters little to the model."""
    done = run_drift(log_predictions(tmp_path, model, TAX=60))
    assert done.returncode == 3
    assert verdicts(done) == STABLE | {"TAX": "drifted"}


def test_prediction_drifts_with_an_important_feature(model, tmp_path):
    """One more room raises the predicted price of most houses."""
    done = run_drift(log_predictions(tmp_path, model, RM=1))
    assert verdicts(done) == STABLE | {"RM": "drifted", "prediction": "drifted"}


def test_too_few_rows_get_no_verdict(model, tmp_path):
    """Even if RM has shifted. The exit status is 0."""
    done = run_drift(log_predictions(tmp_path, model, n_rows=MIN_LOG_ROWS - 1, RM=1))
    assert done.returncode == 0
    assert f"{MIN_LOG_ROWS - 1} rows of {model.tag}" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["RM", str(MIN_LOG_ROWS - 1), "-", "-", "-", "too", "few"] in rows


def test_rows_of_other_models_are_excluded(model, tmp_path):
    """The output says how many there are."""
    log_predictions(tmp_path, model, tag="house_price:old", n_rows=200, RM=1)
    done = run_drift(log_predictions(tmp_path, model))
    assert done.returncode == 0
    assert "Excluded: 200 of house_price:old\n" in done.stdout


def test_log_without_rows_of_the_newest_model_is_rejected(model, tmp_path):
    """The message names the models in the log."""
    done = run_drift(log_predictions(tmp_path, model, tag="house_price:old", n_rows=200))
    check_error(done, str(model.tag), "200 of house_price:old")


def test_data_that_the_model_was_not_trained_on_are_rejected(model, tmp_path):
    """The report command does the same."""
    (tmp_path / "other.csv").write_text(PROJECT.data.read_text().replace("0.00632", "0.00633"))
    done = run_drift(log_predictions(tmp_path, model), "--data", tmp_path / "other.csv")
    assert done.returncode == 1
    assert done.stderr.startswith("The model was trained on other data")


@pytest.mark.parametrize(
    "line",
    ['{"model_tag": "hou', "5", "{}", '{"model_tag": "TAG", "RM": 6.5}'],
    ids=["truncated", "number", "no model tag", "no prediction"],
)
def test_damaged_line_is_reported(model, tmp_path, line):
    """With its file and its line number."""
    log_predictions(tmp_path, model)
    path = tmp_path / "predictions-1.jsonl"
    first, rest = path.read_text().split("\n", 1)
    path.write_text("\n".join([first, line.replace("TAG", str(model.tag)), rest]))
    with pytest.raises(InvalidLogError, match=f"{path}, line 2 is damaged"):
        read_log(tmp_path, str(model.tag), House)


INVALID_RECORDS = {
    "text for a number": ('"CHAS":0.0', '"CHAS":"no"', "1 without a valid CHAS"),
    "feature missing": ('"CHAS":0.0,', "", "1 without a valid CHAS"),
}


@pytest.mark.parametrize(("old", "new", "counts"), INVALID_RECORDS.values(), ids=INVALID_RECORDS)
def test_invalid_record_is_excluded_and_counted(model, tmp_path, old, new, counts):
    """By its first invalid feature. The line is not damaged: the other records are compared."""
    path = log_predictions(tmp_path, model) / "predictions-1.jsonl"
    path.write_text(path.read_text().replace(old, new, 1))
    done = run_drift(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{N_ROWS - 1} rows of {model.tag}" in done.stdout
    assert f"Excluded: {counts}\n" in done.stdout


def test_log_without_valid_records_is_rejected(model, tmp_path):
    """The message names the feature."""
    path = log_predictions(tmp_path, model) / "predictions-1.jsonl"
    path.write_text(path.read_text().replace('"CHAS"', '"RIVER"'))
    check_error(run_drift(tmp_path), f"only {N_ROWS} without a valid CHAS")


def test_incomplete_last_line_is_ignored(model, tmp_path):
    """The service may still be writing it."""
    path = log_predictions(tmp_path, model) / "predictions-1.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert f"{N_ROWS - 1} rows" in run_drift(tmp_path).stdout


def test_missing_log_is_reported(model, tmp_path):
    """Whether the folder is empty or missing."""
    check_error(run_drift(tmp_path), str(tmp_path), "predictions-*.jsonl")
    check_error(run_drift(tmp_path / "nowhere"), "nowhere")


def test_missing_model_is_reported(model, tmp_path):
    """The message says how to train one."""
    check_error(run_drift(tmp_path, "--name", "nowhere"), "run `make train`")


def test_stability_index_follows_its_definition():
    """0.1 * ln(3/2) - 0.1 * ln(7/8), except for the half row that is added to each bin."""
    training = pd.Series(["a", "b"]).repeat([20_000, 80_000])
    log = pd.Series(["a", "b"]).repeat([30_000, 70_000])
    assert stability_index(training, log) == pytest.approx(0.05390, abs=1e-4)


def test_stability_index_is_finite_if_bins_are_empty():
    """It is large for numbers, flags and categories that the training data lack."""
    n_rows = 10 * BINS
    numbers = pd.Series(np.arange(n_rows, dtype=float))
    flags = pd.Series(np.zeros(n_rows))
    names = pd.Series(["a"] * n_rows)
    for training, log in [(numbers, numbers + 1e6), (flags, flags + 1), (names, names + "b")]:
        assert 1 < stability_index(training, log) < np.inf
        assert stability_index(training, training) == 0


@pytest.mark.parametrize("sign", [1, -1], ids=["lowest", "highest"])
def test_stability_index_detects_fewer_rows_with_the_common_value(sign):
    """One value, the lowest or the highest, fills all deciles of the training data."""
    training = sign * pd.Series([0.0] * 950 + list(range(1, 51)))
    log = sign * pd.Series([0.0] * 500 + list(range(1, 51)) * 10)
    assert stability_index(training, log) > 1


def test_categories_booleans_and_missing_values_are_compared():
    """Without a Kolmogorov-Smirnov test; missing values do not count as rows."""
    generator = np.random.default_rng(0)
    training = pd.DataFrame(
        {
            "town": generator.choice(["north", "south"], N_ROWS),
            "river": generator.random(N_ROWS) < 0.1,
            "rooms": generator.normal(size=N_ROWS),
        }
    )
    log = training.assign(town="east").astype({"rooms": object})
    log.loc[MIN_LOG_ROWS - 1 :, "rooms"] = None
    log = convert_types(log, training)
    table = compare(training, log)
    assert table["verdict"].tolist() == ["drifted", "stable", "too few", "drifted"]
    assert table["n"].tolist() == [N_ROWS, N_ROWS, MIN_LOG_ROWS - 1, N_ROWS]
    assert table["KS"][list(training)].isna().all()
    assert len(plot_columns(training, log, table["verdict"][list(training)]).axes) >= 3


def test_p_value_has_bonferroni_correction():
    """The p of one test is multiplied by the number of tests; the result is at most 1."""
    generator = np.random.default_rng(0)
    one = pd.DataFrame({"a": generator.normal(size=N_ROWS)})
    other = one + 0.1
    alone = compare(one, other)["p"]
    with_same = compare(one.assign(b=one["a"]), other.assign(b=one["a"]))["p"]
    assert with_same["a"] == pytest.approx(2 * alone["a"])
    assert with_same["b"] == 1
