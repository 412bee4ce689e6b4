"""How good a fitted regressor is."""

import numpy as np
import pandas as pd
from sklearn.base import RegressorMixin
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

# With less data the threads of OpenMP wait for each other longer than they compute; on a machine
# with other work the training of 400 rows took 70 to 90 s with two threads, and 14 s with one.
MIN_ROWS_FOR_THREADS = 10_000
FOLDS = KFold(5, shuffle=True, random_state=0)
SCORES = {
    "mse": mean_squared_error,
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2_score,
}


def limit_threads(data: Split) -> threadpool_limits:
    """Return a context in which estimators use one thread, if the data are few."""
    is_small = len(data.X_train) < MIN_ROWS_FOR_THREADS
    return threadpool_limits(1 if is_small else None, user_api="openmp")


def takes_frame(estimator: RegressorMixin, X: pd.DataFrame) -> bool:
    """Tell whether a fitted estimator takes a DataFrame, not an array.

    LightGBM has made-up names if it was fitted on an array. A pipeline has none if its first step
    has none, such as a transformer that selects columns by name.
    """
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        return list(names) == list(X)
    try:
        estimator.predict(X.head(1).to_numpy())
    except Exception:  # an estimator may raise any
        return True
    return False


def to_fitted_type(estimator: RegressorMixin, X: pd.DataFrame) -> pd.DataFrame | np.ndarray:
    """Return features as the type that the estimator was fitted on: a DataFrame or an array."""
    return X if takes_frame(estimator, X) else X.to_numpy()


def predict(estimator: RegressorMixin, X: pd.DataFrame) -> np.ndarray:
    """Predict the targets (n_samples,); raise BentoMLException if they have another shape."""
    y_pred = np.asarray(estimator.predict(to_fitted_type(estimator, X)))
    return np.array(to_predictions(y_pred, len(X)))


def evaluate(estimator: RegressorMixin, data: Split) -> dict[str, float]:
    """Return the scores on both parts, and the RMSE of a five-fold cross-validation."""
    predicted = {
        "train": (data.y_train, predict(estimator, data.X_train)),
        "test": (data.y_test, predict(estimator, data.X_test)),
    }
    X, y = to_fitted_type(estimator, pd.concat(data[:2])), pd.concat(data[2:])
    cv_rmse = -cross_val_score(estimator, X, y, cv=FOLDS, scoring="neg_root_mean_squared_error")
    metrics = {
        f"{part}_{name}": score(*predicted[part])
        for name, score in SCORES.items()
        for part in predicted
    }
    metrics |= {"cv_rmse": cv_rmse.mean(), "cv_rmse_std": cv_rmse.std()}
    return {name: float(value) for name, value in metrics.items()}
