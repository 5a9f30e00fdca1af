"""What recorded prompts have in common: a repeated prompt is one block, a trace's ``hash_ids`` are many."""

from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.config.schema import MAX_TOKENS
from gpu_simulate_test.io.recorded.numbers import Ints, Malformed, Rows

# Tokens of a block of ``hash_ids``: Mooncake's own, then those of other tools; Alibaba Bailian's have 16.
_SIZES = (512, 16, 32, 64, 128, 256, 1024, 2048)


def blocks(rows: Rows, prefill: Ints) -> dict[str, Any]:
    """Columns of what prompts begin with; none where it was not recorded.

    Parameters
    ----------
    prefill : numpy.ndarray of shape (n_requests,), int64
        Prompt tokens.

    Returns
    -------
    dict of str to column
        ``block_ids``, a list of texts or numbers for each request: equal ones in one place after equal ones are equal
        tokens. ``block_tokens``, how many tokens each is, as far as the prompt goes. The size of ``hash_ids`` is the
        one that fits most requests; where they do not fit the prompt, they are not taken.

    Raises
    ------
    Malformed
        ``hash_ids`` that are no list of numbers or texts.
    """
    if "prompt_id" in rows.table:
        prompts = ["" if one is None else str(one).strip() for one in rows.table["prompt_id"]]
        known = {name: [name] if name else [] for name in prompts}
        return _columns([known[name] for name in prompts], MAX_TOKENS)
    if "hash_ids" not in rows.table:
        return {}
    given: Any = rows.table["hash_ids"]
    names: list[list[Any]] = [[] if ids is None else ids for ids in given]
    for number, ids in enumerate(names, start=1):
        if not isinstance(ids, list) or not all(type(one) in (int, str) for one in ids):
            raise Malformed(
                f"request {number}: {rows.field('hash_ids')} is no list of numbers or texts: {ascii(ids)[:40]}"
            )
    counts = np.array([len(ids) for ids in names], dtype=np.int64)
    fitting = {size: counts == -(-prefill // size) for size in _SIZES}
    size, fits = max(fitting.items(), key=lambda item: int(item[1].sum()))
    return _columns([ids if fit else [] for ids, fit in zip(names, fits.tolist(), strict=True)], size)


def _columns(names: list[list[Any]], tokens: int) -> dict[str, Any]:
    return {"block_ids": pd.Series(names, dtype=object), "block_tokens": tokens}
