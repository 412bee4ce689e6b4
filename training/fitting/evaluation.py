"""Evaluate a fitted regressor, and the baseline that always predicts the mean."""

import numpy as np
import pandas as pd
from sklearn.base import RegressorMixin
from sklearn.dummy import DummyRegressor
from sklearn.metrics import (
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)
from sklearn.model_selection import KFold, cross_val_score
from threadpoolctl import threadpool_limits

from serving.regressor import to_predictions
from training.data import Split

# With fewer rows, the threads of OpenMP wait for each other longer than they compute: on a busy
# machine, training on 400 rows took 70 to 90 s with two threads, and 14 s with one.
MIN_ROWS_FOR_THREADS = 10_000
FOLDS = KFold(5, shuffle=True, random_state=0)
SCORES = {
    "mse": mean_squared_error,
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2_score,
}


def limit_threads(data: Split) -> threadpool_limits:
    """Return a context in which estimators use one thread if there are few rows."""
    is_small = len(data.X_train) < MIN_ROWS_FOR_THREADS
    return threadpool_limits(1 if is_small else None, user_api="openmp")


def takes_frame(estimator: RegressorMixin, X: pd.DataFrame) -> bool:
    """Return whether a fitted estimator takes a DataFrame instead of an array."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:  # LightGBM makes names up if it is fitted on an array
        return list(names) == list(X)
    # A pipeline has no names if its first step has none, such as a transformer of the user's own.
    # If that selects columns by name, the pipeline fails on an array.
    try:
        estimator.predict(X.head(1).to_numpy())
    except Exception:  # an estimator may raise any exception
        return True
    return False


def to_fitted_type(estimator: RegressorMixin, X: pd.DataFrame) -> pd.DataFrame | np.ndarray:
    """Return features in the type that the estimator takes: a DataFrame or an array."""
    return X if takes_frame(estimator, X) else X.to_numpy()


def predict(estimator: RegressorMixin, X: pd.DataFrame) -> np.ndarray:
    """Predict the targets (n_samples,); raise BentoMLException if they have another shape."""
    y_pred = np.asarray(estimator.predict(to_fitted_type(estimator, X)))
    return np.array(to_predictions(y_pred, len(X)))


def evaluate(estimator: RegressorMixin, data: Split) -> dict[str, float]:
    """Return the scores on the training part and the test part, and the cross-validated RMSE.

    `cv_rmse` is the mean over the five folds, `cv_rmse_std` the standard deviation.
    """
    predicted = {
        "train": (data.y_train, predict(estimator, data.X_train)),
        "test": (data.y_test, predict(estimator, data.X_test)),
    }
    X = to_fitted_type(estimator, data.X)
    cv_rmse = -cross_val_score(
        estimator, X, data.y, cv=FOLDS, scoring="neg_root_mean_squared_error"
    )
    metrics = {
        f"{part}_{name}": score(*predicted[part])
        for name, score in SCORES.items()
        for part in predicted
    }
    metrics |= {"cv_rmse": cv_rmse.mean(), "cv_rmse_std": cv_rmse.std()}
    return {name: float(value) for name, value in metrics.items()}


def evaluate_baseline(data: Split) -> dict[str, float]:
    """Evaluate the baseline: it always predicts the mean of the targets that it was fitted on."""
    return evaluate(DummyRegressor().fit(data.X_train, data.y_train), data)
