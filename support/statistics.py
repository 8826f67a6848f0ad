"""Means, ratios and log-means with their standard errors."""

import numpy as np
from scipy.special import logsumexp

Figures = dict[str, tuple[float, float]]  # {name: (value, standard error)}; an unknown error is NaN


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """(mean, standard error of the mean) of independent values, [n] with n >= 1; the error of a single one is NaN."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return float(values.mean()), float(error)


def ratio_and_error(totals: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """(Σ totals / Σ counts, its standard error) of independent pairs, [n] each, n >= 1; one pair's error is NaN.

    The error is that of the linearised ratio (the delta method); with equal counts this is `mean_and_error`.
    """
    ratio = totals.mean() / counts.mean()
    _, error = mean_and_error(totals - ratio * counts)
    return float(ratio), float(error / counts.mean())


def log_mean_exp(values: np.ndarray) -> tuple[float, float]:
    """(log of the mean of exp(values), its standard error), [n] independent values with n >= 2, by the jackknife.

    The logarithm of a sample's mean is too small on average, the more so the fewer draws dominate it. The jackknife
    takes off what is of the order of 1/n (Nowozin, ICLR 2018), and its error is that of the delta method for large n.
    """
    count, largest = len(values), values.argmax()
    rest = logsumexp(np.delete(values, largest))
    total = np.logaddexp(values[largest], rest)
    shares = np.exp(values - total)
    shares[largest] = 0.0  # its difference would cancel
    without = total + np.log1p(-shares)  # of each value: the sum of the others
    without[largest] = rest
    return mean_and_error(count * (total - np.log(count)) - (count - 1) * (without - np.log(count - 1)))
