"""Bootstrap confidence intervals of the mean loss, such as the squared error, of segments."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
# Rows are divided into this many random groups, and whole groups are resampled: their sums are
# enough for a mean, and the time does not grow with the rows of the log.
GROUPS = 1000
CONFIDENCE = 0.95


class BootstrapMeans(NamedTuple):
    """The mean loss of each segment, in the sample and in each resample."""

    mean: np.ndarray  # (n_segments,)
    resampled: np.ndarray  # (RESAMPLES, n_segments)

    def intervals(self) -> np.ndarray:
        """Return the lower and upper end of the interval of each mean: (2, n_segments)."""
        tail = (1 - CONFIDENCE) / 2
        return np.quantile(self.resampled, [tail, 1 - tail], axis=0)


def resample(
    losses: np.ndarray, masks: Sequence[np.ndarray], prior_rows: int = 0, seed: int = 0
) -> BootstrapMeans:
    """Resample losses (n_samples,) with replacement; a mask (n_samples,) selects a segment.

    A segment's mean that is below the mean of all rows is pulled up toward it, as if the segment
    had `prior_rows` more rows with that mean; a mean above it is kept. With `prior_rows` a segment
    may be empty: its mean is then that of all rows. A segment with few rows may be missing in some
    resamples: give segments of some dozens of rows.
    """
    generator = np.random.default_rng(seed)
    n_groups = min(len(losses), GROUPS)
    groups = generator.permutation(len(losses)) % n_groups
    masks = [np.ones(len(losses), dtype=bool), *masks]  # the first segment: all rows
    sums = np.array([np.bincount(groups[mask], losses[mask], n_groups) for mask in masks])
    counts = np.array([np.bincount(groups[mask], minlength=n_groups) for mask in masks])
    # draws[i, g] is how often resample i contains group g. Row 0 is the sample itself, which
    # contains each group once.
    draws = generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), RESAMPLES)
    draws = np.vstack([np.ones(n_groups, dtype=int), draws])
    weights = draws.astype(float)  # products of integers would take ten times as long
    sums, counts = weights @ sums.T, weights @ counts.T  # (1 + RESAMPLES, 1 + n_segments)
    overall_mean = sums[:, :1] / counts[:, :1]
    means = sums / np.maximum(counts, 1)
    shrunk = (sums + prior_rows * overall_mean) / (counts + prior_rows)
    means = np.maximum(means, shrunk)[:, 1:]  # without that of all rows
    return BootstrapMeans(mean=means[0], resampled=means[1:])


def ratio_intervals(served: BootstrapMeans, expected: BootstrapMeans) -> np.ndarray:
    """Return the ratio of the means of each segment, and its interval: (3, n_segments).

    The intervals are simultaneous: all of them hold with the probability CONFIDENCE. This is the
    max-t method, on the logarithm of the ratios: P. Westfall and S. Young, Resampling-Based
    Multiple Testing (1993). With separate intervals, one of many segments would often seem worse
    by chance.
    """
    ratio = np.log(served.mean / expected.mean)
    resampled = np.log(served.resampled / expected.resampled)
    standard_error = np.std(resampled, axis=0)
    max_t = np.max(np.abs(resampled - ratio) / standard_error, axis=1)
    half_width = np.quantile(max_t, CONFIDENCE) * standard_error
    return np.exp([ratio, ratio - half_width, ratio + half_width])
