"""What the summaries of real and simulated runs say alike."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

_LEVELS = (50, 90, 99)


def latency_lines(
    requests: pd.DataFrame, tokens: pd.DataFrame, samples: Sequence[tuple[pd.DataFrame, pd.DataFrame]] = ()
) -> list[str]:
    """TTFT and TBT percentiles as Markdown list items, ms; none for a metric without values.

    Parameters
    ----------
    requests, tokens : pandas.DataFrame
    samples : sequence of (requests, tokens)
        Simulations with noise: the range of each percentile over them is said too.
    """
    lines = []
    for name, part, column in (("TTFT", 0, "ttft_ns"), ("TBT", 1, "token_latency_ns")):
        values = _percentiles((requests, tokens)[part][column])
        ranges = np.array([_percentiles(sample[part][column]) for sample in samples])
        if not np.isnan(values).any():
            words = [
                f"P{level} {value:.3f} ms"
                + (f" ({ranges[:, i].min():.3f} to {ranges[:, i].max():.3f})" if len(ranges) else "")
                for i, (level, value) in enumerate(zip(_LEVELS, values, strict=True))
            ]
            lines.append(f"- {name}: {', '.join(words)}")
    return lines


def _percentiles(column: "pd.Series[int]") -> np.ndarray:
    known = column.dropna().to_numpy(dtype="float64") / 1e6
    return np.percentile(known, _LEVELS) if known.size else np.full(len(_LEVELS), np.nan)
