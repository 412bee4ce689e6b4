"""Confidence intervals of a mean loss, such as the squared error, by the bootstrap."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
# Rows of a long log are put into so many random groups, and the groups are drawn: their sums are
# enough for a mean, and the time does not depend on the number of rows.
GROUPS = 1000
CONFIDENCE = 0.95


class Resampled(NamedTuple):
    """The mean loss of some parts of the rows, and that of each part in each resample."""

    mean: np.ndarray  # (n_parts,)
    resamples: np.ndarray  # (RESAMPLES, n_parts)

    def interval(self) -> np.ndarray:
        """Return the ends (2, n_parts) of the interval of each mean."""
        tail = (1 - CONFIDENCE) / 2
        return np.quantile(self.resamples, [tail, 1 - tail], axis=0)


def resample(
    losses: np.ndarray, masks: Sequence[np.ndarray], prior_rows: int = 0, seed: int = 0
) -> Resampled:
    """Resample the losses (n_samples,) with replacement; a mask chooses the rows of a part.

    A part has some dozens of rows or more, so that it has rows in each resample. Its mean is
    raised, but not lowered, by some prior rows that have the mean loss of all rows.
    """
    generator = np.random.default_rng(seed)
    n_groups = min(len(losses), GROUPS)
    groups = generator.permutation(len(losses)) % n_groups
    masks = [np.ones(len(losses), dtype=bool), *masks]
    sums = np.array([np.bincount(groups[mask], losses[mask], n_groups) for mask in masks])
    counts = np.array([np.bincount(groups[mask], minlength=n_groups) for mask in masks])
    drawn = generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), RESAMPLES)
    # The first row is the sample itself. The product of integers would take ten times as long.
    weights = np.vstack([np.ones(n_groups), drawn])
    sums, counts = weights @ sums.T, weights @ counts.T
    average = sums[:, :1] / counts[:, :1]
    own = sums / np.maximum(counts, 1)
    means = np.maximum(own, (sums + prior_rows * average) / (counts + prior_rows))
    return Resampled(means[0, 1:], means[1:, 1:])


def ratio_intervals(served: Resampled, trained: Resampled) -> np.ndarray:
    """Return the ratio of the means in each part, and the ends of its interval: (3, n_parts).

    All intervals hold together: each is as many standard errors wide as the largest deviation of
    any part in a resample. Otherwise the worst of many parts would often be so by chance.
    """
    ratio = np.log(served.mean / trained.mean)
    resamples = np.log(served.resamples / trained.resamples)
    standard_error = np.std(resamples, axis=0)
    deviation = np.max(np.abs(resamples - ratio) / standard_error, axis=1)
    width = np.quantile(deviation, CONFIDENCE) * standard_error
    return np.exp([ratio, ratio - width, ratio + width])
