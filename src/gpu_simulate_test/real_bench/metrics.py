"""From a replay's recording to the three metric tables."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gpu_simulate_test.engine import Composition, Step
from gpu_simulate_test.io.tables import REQUEST_COLUMNS
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.real_bench.replay import Recording


@dataclass(frozen=True)
class Metrics:
    """Tables as the artifact contracts describe them."""

    requests: pd.DataFrame
    tokens: pd.DataFrame
    iterations: pd.DataFrame


def build_metrics(workload: Workload, recording: Recording, backend: str) -> Metrics:
    """Tables of one replay: one row for every request, whatever became of it."""
    tokens = _tokens(recording)
    return Metrics(_requests(workload, recording, tokens, backend), tokens, _iterations(recording))


def _tokens(recording: Recording) -> pd.DataFrame:
    failed = {failure.request_id for failure in recording.failures}
    rows = [
        (token.request_id, step.end_ns - recording.start_ns, token.token_id, iteration)
        for iteration, step in enumerate(recording.steps)
        for token in step.tokens
        if token.request_id not in failed
    ]
    frame = pd.DataFrame(rows, columns=["request_id", "token_time_ns", "token_id", "iteration_id"], dtype="int64")
    frame = frame.sort_values(["request_id", "iteration_id"], kind="stable", ignore_index=True)
    by_request = frame.groupby("request_id")
    frame.insert(1, "token_index", by_request.cumcount())
    frame.insert(3, "token_latency_ns", by_request["token_time_ns"].diff().astype("Int64"))
    return frame


def _requests(workload: Workload, recording: Recording, tokens: pd.DataFrame, backend: str) -> pd.DataFrame:
    ids = workload.lengths["request_id"].to_numpy()
    times = tokens.groupby("request_id")["token_time_ns"].agg(["first", "last"]).reindex(ids)
    failures = {failure.request_id: failure for failure in recording.failures}
    preempted = Counter(request_id for step in recording.steps for request_id in step.preempted)
    made = Counter(token.request_id for step in recording.steps for token in step.tokens)
    ok = np.array([request_id not in failures for request_id in ids])
    if missing := [int(i) for i in ids[ok] if made[i] == 0]:
        raise AssertionError(f"requests neither served nor failed: {missing}")
    scheduled: dict[int, int] = {}
    for step in recording.steps:
        for seq in step.batch:
            scheduled.setdefault(seq.request_id, step.start_ns - recording.start_ns)

    def times_of_ok(values: object) -> pd.Series:
        return pd.Series(values, dtype="Int64").where(pd.Series(ok))

    first = times_of_ok(times["first"].to_numpy(dtype="float64", na_value=np.nan))
    frame = pd.DataFrame(
        {
            "request_id": ids,
            "arrival_time_ns": workload.arrival_time_ns,
            "submit_time_ns": times_of_ok([recording.submit_ns[i] for i in ids]),
            "first_scheduled_time_ns": times_of_ok([scheduled.get(i, pd.NA) for i in ids]),
            "first_token_time_ns": first,
            "ttft_ns": first - workload.arrival_time_ns,
            "completion_time_ns": times_of_ok(times["last"].to_numpy(dtype="float64", na_value=np.nan)),
            "num_prefill_tokens": workload.lengths["num_prefill_tokens"],
            "num_decode_tokens": workload.lengths["num_decode_tokens"],
            "num_decode_tokens_actual": [made[i] for i in ids],
            "num_preemptions": pd.array([preempted[i] for i in ids], dtype="Int64"),
            "status": np.where(ok, "ok", "error"),
            "error_type": [failures[i].error_type if i in failures else None for i in ids],
            "error_msg": [failures[i].message if i in failures else None for i in ids],
            "is_warmup": False,
            "backend": backend,
        }
    )
    return frame[list(REQUEST_COLUMNS)]


def _iterations(recording: Recording) -> pd.DataFrame:
    rows = [_iteration(step, recording.start_ns) for step in recording.steps]
    frame = pd.DataFrame(rows)
    frame.insert(0, "iteration_id", np.arange(len(frame)))
    return frame


def _iteration(step: Step, start_ns: int) -> dict[str, int]:
    return {
        "start_time_ns": step.start_ns - start_ns,
        "end_time_ns": step.end_ns - start_ns,
        **Composition.of(step.batch)._asdict(),
        "num_preempted": len(step.preempted),
    }
