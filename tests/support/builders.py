"""Run directories made from arrays, in the contract's own format."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gpu_simulate_test.config.ids import file_sha256
from gpu_simulate_test.io.run_dir import RUN_META
from gpu_simulate_test.io.tables import REQUEST_COLUMNS, REQUEST_METRICS, TOKEN_METRICS, write_table

WORKLOAD_SHA256 = "5a" * 32
MS = 1_000_000


def write_run(
    path: Path,
    run_type: str,
    token_times_ns: Sequence[Sequence[int]],
    *,
    arrival_ns: Sequence[int] | None = None,
    request_ids: Sequence[int] | None = None,
    num_prefill_tokens: Sequence[int] | None = None,
    num_decode_tokens: Sequence[int] | None = None,
    failed: Sequence[int] = (),
    warmup: Sequence[int] = (),
    unstreamed: Sequence[int] = (),
    foreign: bool = False,
    **meta: Any,
) -> Path:
    """Write a finished run directory.

    Parameters
    ----------
    token_times_ns : sequence of sequences of int
        Absolute times of the output tokens of each request.
    arrival_ns : sequence of int of shape (n_requests,), optional
        1 s apart when not given.
    request_ids : sequence of int of shape (n_requests,), optional
        0..N-1 when not given.
    num_prefill_tokens, num_decode_tokens : sequence of int of shape (n_requests,), optional
        As asked; 16 and the number of tokens made when not given.
    failed, warmup : sequence of int
        Ids of failed requests (their tokens are not written) and of warm-up requests.
    unstreamed : sequence of int
        Ids of requests whose answer came in one piece. With any, no tokens are written.
    foreign : bool
        Only the columns that a foreign table must have, 0 as the latency of the first token.
    **meta
        Over the metadata; None leaves a field out.
    """
    path.mkdir(parents=True, exist_ok=True)
    ids = list(request_ids) if request_ids is not None else list(range(len(token_times_ns)))
    requests, tokens = [], []
    for position, (request_id, times) in enumerate(zip(ids, token_times_ns, strict=True)):
        ok = request_id not in failed
        first = times[0] if ok and request_id not in unstreamed else None
        arrival = arrival_ns[position] if arrival_ns is not None else position * 1000 * MS
        requests.append(
            {
                "request_id": request_id,
                "arrival_time_ns": arrival,
                "submit_time_ns": arrival if ok else None,
                "first_scheduled_time_ns": arrival if ok else None,
                "first_token_time_ns": first,
                "ttft_ns": None if first is None else first - arrival,
                "completion_time_ns": times[-1] if ok else None,
                "num_prefill_tokens": num_prefill_tokens[position] if num_prefill_tokens is not None else 16,
                "num_decode_tokens": num_decode_tokens[position] if num_decode_tokens is not None else len(times),
                "num_decode_tokens_actual": len(times) if ok else 0,
                "num_preemptions": 0 if ok else None,
                "status": "ok" if ok else "error",
                "error_type": None if ok else "OutOfBlocks",
                "error_msg": None if ok else "no KV block is free",
                "is_warmup": request_id in warmup,
                "backend": "fake",
            }
        )
        for index, time in enumerate(times if ok and not unstreamed else []):
            latency = time - times[index - 1] if index else (0 if foreign else None)
            tokens.append((request_id, index, time, latency))
    types = {name: "Int64" for name in REQUEST_COLUMNS if name.endswith(("_ns", "_preemptions"))}
    frame = pd.DataFrame(requests, columns=list(REQUEST_COLUMNS)).astype(types)
    write_table(path, REQUEST_METRICS, frame[list(REQUEST_METRICS.required)] if foreign else frame)
    token_frame = pd.DataFrame(tokens, columns=list(TOKEN_METRICS.required)).astype("Int64")
    write_table(path, TOKEN_METRICS, token_frame)
    content = {"run_type": run_type, "run_id": path.name, "workload_sha256": WORKLOAD_SHA256, **meta}
    known = {key: value for key, value in content.items() if value is not None}
    (path / RUN_META).write_text(json.dumps(known), encoding="utf-8")
    return path


def calibration_on(*runs: Path, workload_sha256: str = "0f" * 32, **constants: float) -> dict[str, Any]:
    """What a simulated run says in ``calibration`` when its predictor was calibrated on these run directories.

    Parameters
    ----------
    **constants
        Those that were found, each within a tenth of it; the others were not told from noise.
    """
    neutral = {"step_ns": 0.0, "sequence_ns": 0.0, "kernel_factor": 1.0, "front_end_ns": 0.0, "after_first_token_ns": 0}
    values = neutral | constants
    return {
        "schema_version": "v1",
        "scheduler": "vllm_v1",
        "async_scheduling": False,
        "constants": {
            name: {"value": value, "low": 0.9 * value, "high": 1.1 * value, "found": name in constants}
            for name, value in values.items()
        },
        "runs": [
            {
                "run_id": run.name,
                "path": str(run),
                "sha256": file_sha256(run / REQUEST_METRICS.filename),
                "workload_sha256": workload_sha256,
            }
            for run in runs
        ],
        "held_out": None,
        "leave_one_out": [],
    }


def edit_csv(path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame | None]) -> None:
    """Rewrite a CSV as text cells after `edit`, which changes the frame or returns another."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    changed = edit(frame)
    (frame if changed is None else changed).to_csv(path, index=False, lineterminator="\n")
