"""Prompt and output lengths: fixed, uniform, lognormal or Zipf, the same on any machine."""

import numpy as np

from gpu_simulate_test.config.schema import LengthConfig
from gpu_simulate_test.spans import Ints
from gpu_simulate_test.workloads.draws import exp, ln, normals, uniforms


def draw_lengths(lengths: LengthConfig, count: int, seed: str) -> Ints:
    """Token counts within [low, high].

    Parameters
    ----------
    lengths : LengthConfig
        With ``median``: lognormal, ``sigma`` the standard deviation of the logarithm; beyond the limits, the limits.
        With ``zipf``: a length n is as likely as n to the power of -``zipf``. Else uniform, or ``high`` without a
        ``low``.
    count : int
    seed : str

    Returns
    -------
    numpy.ndarray of shape (count,), int64
    """
    low, high = lengths.low or 1, lengths.high
    if lengths.median is not None and lengths.sigma is not None:
        drawn = np.rint(lengths.median * exp(lengths.sigma * normals(seed, count)))
        return np.clip(drawn, low, high).astype(np.int64)
    if lengths.zipf is not None:
        cumulated = np.cumsum(exp(-lengths.zipf * ln(np.arange(low, high + 1, dtype=np.float64))))
        index = np.searchsorted(cumulated, uniforms(seed, count) * cumulated[-1], side="right")
        zipf: Ints = np.minimum(low + index, high).astype(np.int64)
        return zipf
    if lengths.low is None:
        return np.full(count, high, dtype=np.int64)
    return low + np.floor(uniforms(seed, count) * (high - low + 1)).astype(np.int64)
