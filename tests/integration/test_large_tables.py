"""Tables of millions of tokens are compared within memory."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd

from gpu_simulate_test.io.tables import REQUEST_METRICS, TOKEN_METRICS, write_table
from tests.support.builders import MS, write_run
from tests.support.commands import BIN

NUM_TOKENS = 5_000_000
MAX_BYTES = 2**30  # to compare two such runs, libraries and plots included


def write_large(path: Path, kind: str, num_tokens: int, seed: int) -> Path:
    """A run of requests of 500 tokens each, 20 ms apart."""
    write_run(path, kind, [[MS]])  # its metadata
    rng = np.random.default_rng(seed)
    requests = num_tokens // 500
    gaps = rng.integers(8 * MS, 12 * MS, (requests, 500))
    arrival = np.arange(requests) * 20 * MS
    times = arrival[:, None] + gaps.cumsum(axis=1)
    latency = pd.array(gaps.ravel(), dtype="Int64")
    latency[::500] = pd.NA
    tokens = {
        "request_id": np.repeat(np.arange(requests), 500),
        "token_index": np.tile(np.arange(500), requests),
        "token_time_ns": times.ravel(),
        "token_latency_ns": latency,
    }
    write_table(path, TOKEN_METRICS, pd.DataFrame(tokens))
    of_requests = {
        "request_id": np.arange(requests),
        "arrival_time_ns": arrival,
        "first_token_time_ns": times[:, 0],
        "ttft_ns": times[:, 0] - arrival,
        "num_prefill_tokens": 100,
        "num_decode_tokens": 500,
        "num_decode_tokens_actual": 500,
        "status": "ok",
    }
    write_table(path, REQUEST_METRICS, pd.DataFrame(of_requests))
    return path


def test_five_million_tokens_take_no_more_memory_than_their_columns(tmp_path: Path) -> None:
    real, sim = (write_large(tmp_path / kind, kind, NUM_TOKENS, seed) for seed, kind in enumerate(("real", "vidur")))
    process = subprocess.Popen(
        [str(BIN / "compare-runs"), f"output.root={tmp_path}", f"real_run_dir={real}", f"sim_run_dir={sim}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    written = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert usage.ru_maxrss * 1024 < MAX_BYTES
    table = pd.read_csv(Path(written.splitlines()[-1]) / "percentiles.csv")
    gaps = table.loc[table["metric"] == "tbt", ["n_real", "n_sim"]].to_numpy()
    assert (gaps == NUM_TOKENS // 500 * 499).all(), "every one of them was compared"
