"""What the summaries of real and simulated runs say alike."""

import numpy as np
import pandas as pd


def latency_lines(requests: pd.DataFrame, tokens: pd.DataFrame) -> list[str]:
    """TTFT and TBT percentiles as Markdown list items, ms; none for a metric without values."""
    lines = []
    for name, values in (("TTFT", requests["ttft_ns"]), ("TBT", tokens["token_latency_ns"])):
        known = values.dropna().to_numpy(dtype="float64") / 1e6
        if known.size:
            p50, p90, p99 = np.percentile(known, [50, 90, 99])
            lines.append(f"- {name}: P50 {p50:.3f} ms, P90 {p90:.3f} ms, P99 {p99:.3f} ms")
    return lines
