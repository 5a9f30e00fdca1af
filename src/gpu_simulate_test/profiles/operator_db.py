"""A profile from a public database of operator times, ``aiconfigurator-core``: any of its GPUs, models and engines.

The database knows one operator at one size, and says of each figure whether it was measured, interpolated or estimated.
Where a size lies outside its tables, the nearest work of the same kind that lies inside is priced; the reasons are in
``docs/concepts/prices.md``. The host's own work is in no table, and so in no figure here.
"""

from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.schema import OperatorDbProfile, VidurProfileConfig
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.metadata import sources_told
from gpu_simulate_test.io.profile_tables import KERNELS
from gpu_simulate_test.io.progress import Progress, progress
from gpu_simulate_test.io.provenance import now
from gpu_simulate_test.latency.kernels import KernelModel, Kernels, pipeline
from gpu_simulate_test.profiles.bundle import Contents
from gpu_simulate_test.profiles.operator_prices import ATTENTION, OperatorDatabase, model_folder

_MAX_KV_HEADS = 8  # of the tables of decode attention
_REFERENCE = {"prompts": (2048, 0), "decoding": (0, 64)}  # batches whose time is told by how it is known
_REFERENCE_CONTEXT = 1024
_ONE_KERNEL = ("Gemm", "Moe")
_DISTURBED = 1.25
_SHORT = 16  # a context of one KV block takes no time to read; some figures of shorter ones are out of line
# What every table reaches at least, so that one profile serves more than one set of limits.
_TOKENS, _SEQS, _CONTEXT = 32768, 1024, 131072


def fill(config: VidurProfileConfig) -> Contents:
    """Price the model's operators at all sizes that a batch may have; a few seconds.

    Raises
    ------
    MachineError
        The database is not installed.
    ConfigError
        It does not know the device, the engine or its version, or the model is of a kind that we do not simulate.
    """
    assert isinstance(config.profile, OperatorDbProfile)
    with model_folder(config.model) as folder:
        database = OperatorDatabase(config, folder)
        kv_tokens = database.kv_tokens(config.limits)
        by_batch = _kv_tokens_by_batch(database, config.limits)
        kernels = _kernels(database, config, max(by_batch.values(), default=kv_tokens))
    tables = {table: getattr(kernels, name) for name, table in KERNELS.items()}
    layers, stages = config.model.num_layers, config.limits.pipeline_parallel
    if stages > 1:
        pipeline(kernels, stages, layers)  # or it is refused now, not by whoever reads the profile
    shares = {kind: _shares(kernels, layers, *batch) for kind, batch in _REFERENCE.items()}
    engine, version = config.profile.engine, database.version
    meta = {
        "backend": engine,
        "attn_implementation": None,
        "num_threads": None,
        "engine": {"name": engine, "details": {engine: version}},
        "source": f"aiconfigurator-core {database.package_version}, {database.system}",
        "created_at": now(),
        "reach": KernelModel(None, kernels, layers).high(),
        "operators": {"points": 0},
        "sources": shares,
        "kv_tokens": kv_tokens,
        "kv_tokens_by_batch": by_batch,
        "how": "operator times of a public database, summed over the model's layers; nothing of the host is in them",
    }
    lines = [
        f"- source: {meta['source']}, operators of {engine} {version}",
        f"- of the time of {sources_told(shares)}",
        *(f"- {table.filename}: {len(frame)} points" for table, frame in tables.items()),
        f"- KV cache: {kv_tokens} tokens a replica by the database's memory model, an estimate",
        "- predictor not checked on held-out iterations: none were measured; the host's work is not in it",
        "- no attention over unequal contexts: such batches are taken at their mean",
    ]
    return Contents(tables, meta, lines)


def _kv_tokens_by_batch(database: OperatorDatabase, limits: EngineLimits) -> dict[str, int]:
    """Tokens that the KV cache holds, by those of the largest batch, whose activations it leaves room for."""
    found = {}
    for size in sizes(max(_TOKENS, limits.max_num_batched_tokens), 256):
        with suppress(ConfigError):  # the weights leave no room for a batch of that size
            found[str(size)] = database.kv_tokens(limits.model_copy(update={"max_num_batched_tokens": size}))
    return found


def sizes(high: int, low: int = 1) -> list[int]:
    """Powers of two and what lies half-way between them, from `low` to `high`."""
    powers = [low << number for number in range((high // low).bit_length())]
    return sorted({size for power in powers for size in (power, power + power // 2) if size <= high} | {high})


def _kernels(database: OperatorDatabase, config: VidurProfileConfig, kv_tokens: int) -> Kernels:
    limits, layers = config.limits, config.model.num_layers
    longest = min(config.model.max_position_embeddings, _CONTEXT)
    tokens, seqs = sizes(max(_TOKENS, limits.max_num_batched_tokens)), sizes(max(_SEQS, limits.max_num_seqs))
    parts = len(database.prompts) + len(database.decoding) + len(tokens) + len(seqs)
    with progress("vidur-profile", parts, "parts") as bar:
        per_token = _rows(database, "num_tokens", tokens, bar, prompts=True)
        per_sequence = _rows(database, "num_seqs", seqs, bar, prompts=False)
        prompts = _prompts(database, tokens, longest, layers, bar)
        decoding = _decoding(database, seqs, longest, layers, kv_tokens, bar)
    skew = pd.DataFrame(columns=["prefill_chunk_size", "batch_size", "skewed_ms", "mean_ms", "longest_ms"], dtype=float)
    return Kernels(per_token, per_sequence, pd.concat([prompts, decoding]), skew)


def _rows(database: OperatorDatabase, size: str, counts: list[int], bar: Progress, *, prompts: bool) -> pd.DataFrame:
    """Operators of a whole batch, by its tokens; of its last tokens alone (the LM head), by its requests."""
    rows = []
    for op in database.prompts if prompts else database.decoding:
        bar.update()
        ((kind, values),) = op.items()
        if kind in ATTENTION or ("logits" in values["name"]) == prompts:
            continue
        sizes = ((1, count) if prompts else (count, 1) for count in counts)
        found = [database.ms(op, prompts=prompts, seqs=seqs, tokens=each) for seqs, each in sizes]
        took, sources = np.array([one for one, _ in found]), [source for _, source in found]
        if kind in _ONE_KERNEL:
            took = _undisturbed(took)
        if kind == "Moe":
            took, sources = _routed(took, sources, counts, values["num_experts"] / values["topk"])
        calls = round(values["scale_factor"])
        name = values["name"].partition("_")[2]
        rows += [
            (name, count, one / calls, calls, source) for count, one, source in zip(counts, took, sources, strict=True)
        ]
    return pd.DataFrame(rows, columns=["op", size, "median_ms", "calls", "source"])


def _undisturbed(took: np.ndarray) -> np.ndarray:
    """A kernel's times by tokens, but for those that are far above what more tokens take, the median of five sizes.

    One in ten of the FP8 figures of B200 is 20 us above all others around it, at sizes that have nothing in common.
    """
    more = np.lib.stride_tricks.sliding_window_view(np.append(took[1:], [np.inf] * 5), 5)
    usual = np.median(more, axis=-1)
    return np.where(took > _DISTURBED * usual, usual, took)


def _routed(took: np.ndarray, sources: list[str], tokens: list[int], full: float) -> tuple[np.ndarray, list[str]]:
    """Times of experts that tokens visit at random, from those of tokens that go out of each other's way.

    Balanced, `full` tokens visit every expert once, and fewer share none. At random they meet: the weights of fewer
    experts are read. Beyond those, a kernel takes what it takes.
    """
    seen = full * (1 - (1 - 1 / full) ** np.array(tokens))  # balanced tokens that visit as many experts
    beyond = np.maximum(0.0, took - np.interp(full, tokens, took))
    apart = seen < 0.99 * np.minimum(tokens, full)
    known = [
        "interpolated" if differs and source == "measured" else source
        for differs, source in zip(apart, sources, strict=True)
    ]
    return np.interp(seen, tokens, took) + beyond, known


def _attention(found: list[tuple[float, str]], layers: int) -> tuple[float, str]:
    """One layer, on average over kinds of layers; known as well as the least known of them."""
    order = ["measured", "interpolated", "estimated"]
    return sum(took for took, _ in found) / layers, max((source for _, source in found), key=order.index)


def _prompts(database: OperatorDatabase, chunks: list[int], longest: int, layers: int, bar: Progress) -> pd.DataFrame:
    ops = [op for op in database.prompts if "ContextAttention" in op]
    rows = []
    for chunk in chunks:
        bar.update()
        for cached in [0, *sizes(longest, 64)]:
            found = [database.ms(op, prompts=True, seqs=1, tokens=chunk, cached=cached) for op in ops]
            rows.append((chunk, cached, 0, 0, *_attention(found, layers)))
    return pd.DataFrame(rows, columns=_ATTENTION_COLUMNS)


def _decoding(
    database: OperatorDatabase, seqs: list[int], longest: int, layers: int, kv_tokens: int, bar: Progress
) -> pd.DataFrame:
    ops = [op["GenerationAttention"] for op in database.decoding if "GenerationAttention" in op]
    contexts = np.array(sizes(longest, _SHORT))
    rows = []
    for count in seqs:
        bar.update()
        # Beyond what the KV cache holds nothing was measured, and nothing runs: there the line goes straight on.
        within = max(2, int(np.searchsorted(contexts, kv_tokens / count, side="right")))
        found = [
            _attention([_of_heads(database, op, count, context) for op in ops], layers)
            for context in contexts[:within].tolist()
        ]
        took = _from_memory(contexts[:within], np.array([one for one, _ in found]))
        slope = (took[-1] - took[-2]) / (contexts[within - 1] - contexts[within - 2])
        beyond = took[-1] + slope * (contexts[within:] - contexts[within - 1])
        sources = [source for _, source in found] + ["estimated"] * len(beyond)
        for context, time, source in zip(contexts, [*took, *beyond], sources, strict=True):
            rows.append((0, 0, count, int(context), float(time), source))
    return pd.DataFrame(rows, columns=_ATTENTION_COLUMNS)


def _from_memory(contexts: np.ndarray, took: np.ndarray) -> np.ndarray:
    """Decode attention with its KV cache in memory, by context: the lowest concave function above the measured one.

    A benchmark calls one operator over and over, so that a small KV cache stays in the L2 cache of the GPU. In a model
    all other layers run in between. Times that come from memory are, over the context, straight; what lies below the
    line between a context too short to matter and those beyond the L2 cache was read from it.
    """
    kept: list[int] = []
    for number in range(len(contexts)):
        while len(kept) > 1:
            rise, run = (of[kept[-1]] - of[kept[-2]] for of in (took, contexts))
            if rise * (contexts[number] - contexts[kept[-2]]) > (took[number] - took[kept[-2]]) * run:
                break
            kept.pop()
        kept.append(number)
    return np.asarray(np.interp(contexts, contexts[kept], took[kept]))


_ATTENTION_COLUMNS = ["prefill_chunk_size", "prefill_kv", "batch_size", "decode_kv", "median_ms", "source"]


def _of_heads(database: OperatorDatabase, op: dict[str, Any], seqs: int, context: int) -> tuple[float, str]:
    """Decode attention. The KV heads of a sequence are work of the same kind as more sequences."""
    parts = max(1, op["n_kv"] // _MAX_KV_HEADS)
    op = op | {"n": op["n"] // parts, "n_kv": op["n_kv"] // parts}
    return database.ms({"GenerationAttention": op}, prompts=False, seqs=seqs * parts, tokens=context)


def _shares(kernels: Kernels, layers: int, prompt_tokens: int, decoding: int) -> dict[str, float]:
    """Of the time of a batch, what was measured, what interpolated and what estimated."""
    attention = kernels.attention
    size = prompt_tokens or decoding
    ops = kernels.per_token[kernels.per_token["num_tokens"] == size]
    once = kernels.per_sequence[kernels.per_sequence["num_seqs"] == max(1, decoding)]
    if prompt_tokens:
        of = attention[(attention["prefill_chunk_size"] == size) & (attention["prefill_kv"] == 0)]
    else:
        of = attention[(attention["batch_size"] == size) & (attention["decode_kv"] == _REFERENCE_CONTEXT)]
    found = pd.concat([ops, once, of.assign(calls=layers)])
    took = (found["median_ms"] * found["calls"]).groupby(found["source"]).sum()
    total = float(took.sum())
    return {source: float(took.get(source, 0.0)) / total for source in ("measured", "interpolated", "estimated")}
