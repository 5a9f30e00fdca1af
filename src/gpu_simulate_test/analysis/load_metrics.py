"""Read the metrics of a run and refuse what contradicts itself; real and simulated runs alike.

Of a real run and of a simulated one compare-runs needs, of each request, the columns that its table must have and
``completion_time_ns``, and of each token ``request_id``, ``token_index``, ``token_time_ns``; ``token_latency_ns`` is
only held against them.

Of a further simulation with noise (``samples/<number>/``) it needs less: the request table, and ``tbt_quantiles.csv``
(`gpu_simulate_test.io.tables.TBT_QUANTILES`) in place of the tokens: ``level``, 0 to 1 in steps of 0.001 so that P50,
P90 and P99 are among them, and ``token_latency_ns``, the quantile of the run's times between tokens (linear
interpolation); no rows where no request made two tokens. The mean TBT follows from the requests. Its tokens are read
only where it has no such table.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gpu_simulate_test.analysis.checks import Check, check_presence, check_times, is_ok, is_warmup
from gpu_simulate_test.analysis.load_tokens import groups, read_tokens
from gpu_simulate_test.analysis.numbers import count
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.run_dir import read_run_meta
from gpu_simulate_test.io.tables import (
    ITERATION_METRICS,
    REQUEST_METRICS,
    SAMPLES,
    TBT_QUANTILES,
    TOKEN_METRICS,
    find_table,
    read_table,
)

STAGE_OF_TYPE = {"real": "real-bench", "vidur": "vidur-sim"}
NUM_QUANTILES = 1001
_OF_ITERATIONS = (
    "start_time_ns",
    "end_time_ns",
    "num_prefill_tokens",
    "num_prefill_seqs",
    "num_decode_seqs",
    "kv_tokens_prefill",
    "kv_tokens_decode",
    "in_profile",
)
_HELD_TOKENS = 1_000_000  # of a repeat; reading that many again takes a tenth of a second
_FIGURE_OF_COLUMN = {
    "submit_time_ns": "dispatch lag",
    "first_scheduled_time_ns": "queueing delay",
    "num_preemptions": "preemptions",
    "is_warmup": "which requests were warm-up",
}


@dataclass(frozen=True)
class Run:
    """A run as the comparison needs it, warm-up left out.

    Attributes
    ----------
    path : Path
        Its run directory.
    meta : dict
        Its ``run_meta.json``.
    requests : pandas.DataFrame of shape (n_requests, n_columns)
        Request metrics in ns, failed requests included, by ascending ``request_id``. ``completion_time_ns`` is
        always there; an optional time column that the run lacks is not. Where ``tokens`` has no rows, a request
        that completed may lack its ``first_scheduled_time_ns``, and its ``first_token_time_ns`` and ``ttft_ns``: its
        answer was not streamed.
    tokens : pandas.DataFrame of shape (n_tokens, n_columns)
        Token metrics in ns of the ``ok`` requests, by ascending ``request_id`` and ``token_index``.
        ``token_latency_ns`` is NaN at token 0. No rows where the run did not record when each token was made, or where
        they were let go.
    iterations : pandas.DataFrame or None
        Iteration metrics in ns; None when the run has none.
    missing : list of str
        Figures that cannot be computed from a foreign run, each with the reason.
    samples : list of Run
        Of a simulated run: further simulations of the same, with noise; of each its requests, and its tokens or
        ``tbt_quantiles``.
    tbt_quantiles : ndarray of shape (1001,) or (0,), optional
        Of such a simulation without tokens: evenly spaced quantiles of its times between tokens, ns.
    let_go : bool
        Its tokens were read and checked, but are not held.
    """

    path: Path
    meta: dict[str, Any]
    requests: pd.DataFrame
    tokens: pd.DataFrame
    iterations: pd.DataFrame | None
    missing: list[str]
    samples: "list[Run]" = field(default_factory=list)
    tbt_quantiles: npt.NDArray[np.float64] | None = None
    let_go: bool = False

    @property
    def closed_loop(self) -> bool:
        """Whether its requests were sent when others of its own ended."""
        return bool(self.meta.get("closed_loop"))

    @property
    def has_tokens(self) -> bool:
        """Whether it recorded when each token was made."""
        return self.let_go or not self.tokens.empty

    def without_tokens(self) -> "Run":
        """The same run, its tokens let go if they are so many that they count."""
        if len(self.tokens) <= _HELD_TOKENS:
            return self
        return replace(self, tokens=self.tokens.iloc[:0].copy(), let_go=True)

    def with_tokens(self) -> "Run":
        """The same run, its tokens read again if they were let go."""
        return load_run(self.path, "real") if self.let_go else self


def load_run(path: Path, run_type: str) -> Run:
    """Read a finished run directory and check that its tables agree with each other.

    Parameters
    ----------
    path : Path
        The run directory.
    run_type : {"real", "vidur"}
        What it has to be; a foreign run that does not say is taken at the caller's word.

    Returns
    -------
    Run

    Raises
    ------
    ArtifactError
        Missing, incomplete, malformed, of the other type, or contradicting itself; one line names the file, the
        first request concerned and what to do.
    """
    meta = read_run_meta(path)
    found = meta.get("run_type", run_type)
    if found != run_type:
        raise ArtifactError(f"run_type is {found}, not {run_type}: {path}; name a run that {_stage(run_type)} wrote")
    advice = f"run {_stage(run_type)} again"
    requests, tokens, missing = _load_tables(Check(path, advice))
    iterations = None
    if find_table(path, ITERATION_METRICS):
        iterations = read_table(path, ITERATION_METRICS)
    else:
        missing.append(f"iteration records (no {ITERATION_METRICS.filename})")
    return Run(path, meta, requests, tokens, iterations, missing, list(load_samples(path, meta)))


def load_samples(path: Path, meta: dict[str, Any]) -> Iterator[Run]:
    """The simulations with noise of a simulated run, one after another, with their tokens or quantiles of these."""
    for folder in sorted((path / SAMPLES).glob("*")):
        check = Check(folder, f"run {_stage('vidur')} again")
        if find_table(folder, TBT_QUANTILES):
            yield _without_tokens(check, meta)
        else:
            yield Run(folder, meta, *_load_tables(check)[:2], None, [])


def load_simulation(path: Path, meta: dict[str, Any]) -> Run:
    """A simulated run without its tokens, of which there may be very many, and without those with noise.

    Parameters
    ----------
    path : Path
        The run directory; its metadata file may not be written yet.
    meta : dict
        What will be in it.

    Returns
    -------
    Run
        Of the iterations it holds what they were made of, and when.

    Raises
    ------
    ArtifactError
        As of `load_run`.
    """
    run = _without_tokens(Check(path, f"run {_stage('vidur')} again"), meta)
    return replace(run, iterations=read_table(path, ITERATION_METRICS, _OF_ITERATIONS))


def _without_tokens(check: Check, meta: dict[str, Any]) -> Run:
    """A simulation with the quantiles of its times between tokens in place of its tokens."""
    requests, _ = _read_requests(check)
    requests = requests[~is_warmup(requests)].reset_index(drop=True)
    check_presence(check, requests, is_ok(requests))
    check_times(check, requests)
    table = read_table(check.path, TBT_QUANTILES)
    if len(table) and not np.array_equal(table["level"].round(6), np.linspace(0, 1, NUM_QUANTILES).round(6)):
        raise ArtifactError(f"level is not 0, 0.001, ... 1: {check.file(TBT_QUANTILES)}; {check.advice}")
    tokens = pd.DataFrame({name: np.empty(0) for name in TOKEN_METRICS.required})
    return Run(
        check.path, meta, requests, tokens, None, [], tbt_quantiles=table["token_latency_ns"].to_numpy(dtype=np.float64)
    )


def _load_tables(check: Check) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The requests and tokens of a folder, warm-up left out, and what they lack."""
    requests, missing = _read_requests(check)
    tokens = read_tokens(check, requests)
    requests = requests[~is_warmup(requests)].reset_index(drop=True)
    if tokens.empty and "completion_time_ns" in requests:
        missing.append(f"time of each token, so TBT ({check.file(TOKEN_METRICS).name} has no rows)")
        ok = is_ok(requests)
        if unknown := int(requests["first_token_time_ns"].isna().to_numpy(dtype=bool)[ok].sum()):
            missing.append(
                f"first token of {count(unknown)} of {count(ok.sum(), 'request')}, so their TTFT and TPOT "
                "(no first_token_time_ns, as when answers are not streamed)"
            )
        check_presence(check, requests, ok, may_miss=("first_scheduled_time_ns", "first_token_time_ns", "ttft_ns"))
    else:
        requests = _match_tokens(check, requests, tokens)
    check_times(check, requests)
    return requests, tokens, missing


def _stage(run_type: str) -> str:
    return STAGE_OF_TYPE.get(run_type, run_type)


def _read_requests(check: Check) -> tuple[pd.DataFrame, list[str]]:
    """Read the request table, warm-up still in it, by ascending id; and the figures it cannot give."""
    frame = read_table(check.path, REQUEST_METRICS)
    frame = frame.sort_values("request_id", kind="stable", ignore_index=True)
    ids = frame["request_id"]
    if frame.empty:
        raise ArtifactError(f"no requests: {check.file(REQUEST_METRICS)}; {check.advice}")
    check.refuse(ids.duplicated(), ids, "duplicate request_id", REQUEST_METRICS)
    check.refuse(~frame["status"].isin(["ok", "error"]), ids, "status is neither ok nor error", REQUEST_METRICS)
    for column in ("submit_time_ns", "first_scheduled_time_ns", "completion_time_ns", "num_preemptions"):
        # A column of empty fields says as little as no column.
        if column in frame and bool(frame[column].isna().all()):
            frame = frame.drop(columns=column)
    missing = [f"{figure} (no {column})" for column, figure in _FIGURE_OF_COLUMN.items() if column not in frame]
    return frame, missing


def _match_tokens(check: Check, requests: pd.DataFrame, tokens: pd.DataFrame) -> pd.DataFrame:
    """Hold every ok request against its tokens; the last one gives `completion_time_ns`."""
    ok = is_ok(requests)
    ids = requests["request_id"].to_numpy()[ok]
    stated = requests["num_decode_tokens_actual"].to_numpy()[ok]
    check.refuse(stated < 1, ids, "an ok request that made no token", REQUEST_METRICS)
    starts, ends = groups(tokens["request_id"].to_numpy())
    rows = np.zeros(len(ids), dtype=np.int64)
    rows[np.searchsorted(ids, tokens["request_id"].to_numpy()[starts])] = ends - starts
    wrong = rows != stated
    check.refuse(wrong, ids, "token rows do not add up to num_decode_tokens_actual", TOKEN_METRICS)

    check_presence(check, requests, ok)
    times = tokens["token_time_ns"].to_numpy()
    first = requests["first_token_time_ns"].to_numpy(dtype=np.int64, na_value=0)[ok]
    check.refuse(first != times[starts], ids, "first_token_time_ns is not the time of the first token", REQUEST_METRICS)
    completion = np.zeros(len(requests), dtype=np.int64)
    completion[ok] = times[ends - 1]
    if "completion_time_ns" in requests:
        wrong = requests["completion_time_ns"].to_numpy(dtype=np.int64, na_value=0)[ok] != completion[ok]
        check.refuse(wrong, ids, "completion_time_ns is not the time of the last token", REQUEST_METRICS)
    return requests.assign(completion_time_ns=pd.arrays.IntegerArray(completion, ~ok))
