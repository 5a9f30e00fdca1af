"""Where two profiles of an RTX PRO 6000 differ, operator by operator: LLMServingSim's and the operator database's.

How far the simulations from them are from a real run is on the board: ``python -m benchmarks.fidelity rtx-pro-6000``.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from benchmarks.fidelity.rtx_pro_6000 import DATA, SETTINGS
from benchmarks.stages import run_command
from benchmarks.table import Row, Scale

# An operator of the database, and LLMServingSim's layer for the same work; those that only one of them has.
_PAIRS = {
    "qkv_gemm": "qkv_proj",
    "proj_gemm": "o_proj",
    "gate_ffn1_gemm": "gate_up_proj",
    "ffn2_gemm": "down_proj",
    "add_norm_1": "layernorm",
    "act_gate": "act_fn",
}
_TOKENS = (1, 32, 128, 512, 2048)


def rows(scale: Scale) -> Iterator[Row]:
    """The database's time over LLMServingSim's."""
    if not DATA.is_dir():
        yield Row("RTX PRO 6000 profiles", f"not compared: they are not here: {DATA.name}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield from _operators(run_command("vidur_profile", *SETTINGS, "profile=operator_db", f"output.root={scratch}"))


def _operators(root: Path) -> Iterator[Row]:
    """What the database says over what LLMServingSim's profiler measured."""
    (folder,) = (path.parent for path in root.glob("**/profile_meta.json"))
    ours = pd.read_csv(folder / "kernels_per_token.csv").set_index(["op", "num_tokens"])["median_ms"]
    theirs = pd.read_csv(DATA / "profile" / "dense.csv").set_index(["layer", "tokens"])["time_us"]
    for op, layer in _PAIRS.items():
        said = (f"{1e3 * ours[op, n] / theirs[layer, n]:.2f}" for n in _TOKENS)
        yield Row(f"{op} over {layer}, at {', '.join(map(str, _TOKENS))} tokens", ", ".join(said))
    attention = pd.read_csv(folder / "kernels_attention.csv")
    decoding = attention[attention["batch_size"] > 0].set_index(["batch_size", "decode_kv"])["median_ms"]
    prompts = attention[attention["batch_size"] == 0].set_index(["prefill_chunk_size", "prefill_kv"])["median_ms"]
    table = pd.read_csv(DATA / "profile" / "attention.csv")
    alone = table[table["prefill_chunk"] == 0].set_index(["n_decode", "kv_decode"])["time_us"]
    first = table[table["n_decode"] == 0].set_index(["prefill_chunk", "kv_prefill"])["time_us"]
    for seqs in (8, 32, 128):
        said = (f"{1e3 * decoding[seqs, context] / alone[seqs, context]:.2f}" for context in (512, 1024, 2048))
        yield Row(f"decode attention of {seqs} sequences, at contexts of 512, 1024, 2048", ", ".join(said))
    for cached in (0, 1024):
        said = (f"{1e3 * prompts[chunk, cached] / first[chunk, cached]:.2f}" for chunk in (128, 512, 2048))
        yield Row(f"prompt attention, {cached} tokens cached, of chunks of 128, 512, 2048", ", ".join(said))
    both = table[(table["prefill_chunk"] == 512) & (table["n_decode"] == 32) & (table["kv_prefill"] == 0)]
    for _, row in both[both["kv_decode"].isin([512, 1024])].iterrows():
        apart = first[512, 0] + alone[32, int(row["kv_decode"])]
        yield Row(
            f"LLMServingSim: a prompt of 512 and 32 sequences of {int(row['kv_decode'])} in one launch, over apart",
            f"{row['time_us'] / apart:.2f}",
        )
