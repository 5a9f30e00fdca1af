"""What generated prompts begin with in common: as drawn, or as recorded."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from gpu_simulate_test.config.schema import PrefixConfig
from gpu_simulate_test.io.recorded.text import plain
from gpu_simulate_test.io.workload import Segments
from gpu_simulate_test.workloads.draws import uniforms


def drawn_prefixes(prefix: PrefixConfig, count: int, seed: int) -> list[Segments] | None:
    """One of the prefixes for each of `count` requests, each as likely; None where there are none."""
    if prefix.num_tokens is None:
        return None
    choices = [((f"prefix-{number}", prefix.num_tokens),) for number in range(prefix.num_prefixes)]
    chosen = np.floor(uniforms(f"prefix-{seed}", count) * prefix.num_prefixes).astype(np.int64)
    return [choices[number] for number in chosen.tolist()]


def recorded_prefixes(requests: pd.DataFrame, scale: float) -> list[Segments] | None:
    """What each recorded prompt begins with, as far as another one does so as well; None where that is unknown.

    Parameters
    ----------
    requests : pandas.DataFrame of shape (n_requests, n_columns)
        As `gpu_simulate_test.io.recorded.select` gives them: their lengths are scaled.
    scale : float
        Of the lengths, and so of the blocks.
    """
    if "block_ids" not in requests:
        return None
    names: list[list[str | int]] = requests["block_ids"].tolist()
    prefill = requests["num_prefill_tokens"].tolist()
    size = float(requests["block_tokens"].iloc[0]) * scale
    return [
        _segments(ids[:depth], size, count)
        for ids, depth, count in zip(names, _shared_depths(names), prefill, strict=True)
    ]


def _shared_depths(names: Sequence[Sequence[str | int]]) -> list[int]:
    """How many leading names of each are those of another."""
    depths = [0] * len(names)
    groups: list[Sequence[int]] = [range(len(names))]
    depth = 0
    while groups:
        equal: dict[tuple[int, str | int], list[int]] = defaultdict(list)
        for number, group in enumerate(groups):
            for index in group:
                if len(names[index]) > depth:
                    equal[number, names[index][depth]].append(index)
        groups, depth = [group for group in equal.values() if len(group) > 1], depth + 1
        for group in groups:
            for index in group:
                depths[index] = depth
    return depths


def _segments(names: Sequence[str | int], size: float, count: int) -> Segments:
    ends = [min(round(size * number), count) for number in range(len(names) + 1)]
    parts = zip(names, ends, ends[1:], strict=False)
    return tuple((plain(str(name)), end - start) for name, start, end in parts if end > start)
