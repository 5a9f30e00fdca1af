"""What the summaries of real and simulated runs say alike."""

from collections.abc import Sequence

import numpy as np

LEVELS = (50, 90, 99)


def latency_lines(latencies: np.ndarray, samples: Sequence[np.ndarray] = ()) -> list[str]:
    """TTFT and TBT percentiles as Markdown list items, ms; none for a metric without values.

    Parameters
    ----------
    latencies : numpy.ndarray of shape (2, 3)
        P50, P90 and P99 of TTFT and TBT, ms; NaN for a metric without values.
    samples : sequence of numpy.ndarray of shape (2, 3)
        Simulations with noise: the range of each percentile over them is said too.
    """
    lines = []
    for row, name in enumerate(("TTFT", "TBT")):
        values = latencies[row]
        ranges = np.array([sample[row] for sample in samples])
        if not np.isnan(values).any():
            words = [
                f"P{level} {value:.3f} ms"
                + (f" ({ranges[:, i].min():.3f} to {ranges[:, i].max():.3f})" if len(ranges) else "")
                for i, (level, value) in enumerate(zip(LEVELS, values, strict=True))
            ]
            lines.append(f"- {name}: {', '.join(words)}")
    return lines
