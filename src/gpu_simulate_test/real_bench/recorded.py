"""A run that was recorded elsewhere, taken in as a real run."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.config.schema import RealBenchConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.recorded import LENGTHS, TIMES, read_recorded, select
from gpu_simulate_test.io.run_dir import OpenRunDir
from gpu_simulate_test.io.summary import latency_lines
from gpu_simulate_test.io.tables import REQUEST_METRICS, TOKEN_METRICS
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.run_tables import latency_percentiles, with_status
from gpu_simulate_test.spans import Gaps


def read_run(config: RealBenchConfig) -> pd.DataFrame:
    """Read the run that ``backend.requests`` names; see `gpu_simulate_test.io.recorded.read_recorded`.

    Raises
    ------
    ConfigError
        It is missing.
    ArtifactError
        It is malformed, or has no answers.
    """
    if config.backend.requests is None:
        raise ConfigError("backend.requests is missing: name the file of recorded requests")
    source = Path(config.backend.requests)
    recorded = read_recorded(source, config.workload.trace_columns, config.workload.trace_time_unit)
    if "completion_time_ns" not in recorded:
        raise ArtifactError(f"requests without answers: {source}: no completion_time_ns; name the result of a run")
    return recorded


def import_recorded(config: RealBenchConfig, workload: Workload, recorded: pd.DataFrame, run: OpenRunDir) -> None:
    """Write a recorded run as a run directory; what was not recorded stays missing.

    Iterations never are; when its first token came is not where a request's answer was not streamed. Where the times of
    some request's tokens are not, ``token_metrics.csv`` has no rows. Where arrivals are not, those of the workload are
    taken, and the run's metadata say so. The engine's limits are those of the settings.

    Raises
    ------
    ArtifactError
        The record is of other requests than the workload's.
    """
    backend = config.backend
    assert backend.requests is not None  # `read_run` has read it
    source = Path(backend.requests)
    unscaled = config.workload.model_copy(update={"trace_time_scale": 1.0, "trace_length_scale": 1.0})
    recorded, _ = select(recorded, unscaled, config.model.max_position_embeddings, source)
    asked, timed = workload.lengths[list(LENGTHS)], "arrival_time_ns" in recorded
    if workload.arrivals.is_open:
        asked = asked.assign(arrival_time_ns=workload.arrivals.known_ns)
        if not timed and len(recorded) == len(asked):
            recorded = _arriving(recorded, workload.arrivals.known_ns)
    elif not timed:
        raise ArtifactError(f"arrivals not recorded: {source}; a closed loop says when its requests were sent")
    if len(recorded) != len(asked) or not (recorded[list(asked)].to_numpy() == asked.to_numpy()).all():
        raise ArtifactError(
            f"recorded run of other requests than the workload's: {source} and {workload.path}; "
            f"run workload-spec with workload=trace workload.trace={source}"
        )
    requests = _requests(recorded, backend.name)
    tokens, unknown = _tokens(recorded)
    run.write_table(REQUEST_METRICS, requests)
    run.write_table(TOKEN_METRICS, tokens)
    lines = [f"# Recorded run {run.name}", "", f"- {len(requests)} requests of {source.name}"]
    failed = int((requests["status"] == "error").sum())
    if failed:
        lines += [f"- {failed} of them failed; a length that was not recorded is taken as 1"]
    if unstreamed := int(requests.loc[requests["status"] == "ok", "first_token_time_ns"].isna().sum()):
        lines += [f"- TTFT not recorded: of {unstreamed} requests, as when answers are not streamed"]
    if unknown:
        lines += [f"- no times of tokens: of {unknown} requests they are not recorded one by one"]
    if not timed:
        lines += ["- arrivals not recorded: those of the workload are taken"]
    lines += ["- engine limits as the settings state them: they were not recorded"]
    gaps = Gaps.of(tokens["token_latency_ns"].dropna().to_numpy(dtype=np.int64))
    lines += latency_lines(latency_percentiles(requests, gaps))
    run.write_text("summary.md", "\n".join(lines) + "\n")
    run.finish(
        run_type="real",
        **workload.record(),
        backend=backend.name,
        engine=_engine(config),
        source=str(source.absolute()),
        arrivals_recorded=timed,
        env={},  # of the machine that served, which is not this one
    )


def _engine(config: RealBenchConfig) -> dict[str, Any]:
    """As the settings state it."""
    backend = config.backend
    told = {"name": backend.name, "limits": config.limits.model_dump(), "device": config.hardware.device}
    if backend.engine is not None:
        told["details"] = {"engine": backend.engine, backend.engine: backend.engine_version}
    return told


def _arriving(recorded: pd.DataFrame, arrival_ns: np.ndarray) -> pd.DataFrame:
    """Requests whose times are since their own arrival, at these arrivals."""
    shifted: dict[str, Any] = {name: recorded[name] + arrival_ns for name in TIMES[1:] if name in recorded}
    if "token_times_ns" in recorded:
        pairs = zip(recorded["token_times_ns"], arrival_ns, strict=True)
        shifted["token_times_ns"] = [None if times is None else times + start for times, start in pairs]
    return recorded.assign(arrival_time_ns=arrival_ns, **shifted)


def _requests(recorded: pd.DataFrame, backend: str) -> pd.DataFrame:
    ok = recorded["error_type"].isna()
    unknown = pd.Series(pd.NA, index=recorded.index, dtype="Int64")
    times = recorded.assign(
        request_id=np.arange(len(recorded)),
        first_scheduled_time_ns=recorded.get("first_scheduled_time_ns", unknown),
        first_token_time_ns=recorded.get("first_token_time_ns", unknown),
        num_decode_tokens_actual=recorded["num_decode_tokens"].where(ok, 0),
        num_preemptions=unknown,
    )
    return with_status(times, backend)


def _tokens(recorded: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Rows for every token, or none when that of some request that did not fail is unknown; of how many it is."""
    ok = recorded["error_type"].isna().to_numpy(dtype=bool)
    times = recorded["token_times_ns"] if "token_times_ns" in recorded else pd.Series([None] * len(recorded))
    unknown = int((ok & times.isna().to_numpy(dtype=bool)).sum())
    known = {index: times[index] for index in np.flatnonzero(ok)} if not unknown else {}
    counts = [len(one) for one in known.values()]
    nothing = [np.empty(0, dtype=np.int64)]
    frame = pd.DataFrame(
        {
            "request_id": np.repeat(list(known), counts),
            "token_index": np.concatenate([np.arange(count) for count in counts] or nothing),
            "token_time_ns": np.concatenate(list(known.values()) or nothing),
        },
        dtype="Int64",
    )
    return frame.assign(token_latency_ns=frame["token_time_ns"].diff().mask(frame["token_index"] == 0)), unknown
