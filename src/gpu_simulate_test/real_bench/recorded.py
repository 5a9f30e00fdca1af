"""A run that was recorded elsewhere, taken in as a real run."""

from pathlib import Path

import pandas as pd

from gpu_simulate_test.config.schema import HydraRecord, RealBenchConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.provenance import now, run_meta
from gpu_simulate_test.io.recorded import LENGTHS, read_recorded
from gpu_simulate_test.io.run_dir import RunDir
from gpu_simulate_test.io.summary import latency_lines
from gpu_simulate_test.io.tables import REQUEST_METRICS, TOKEN_METRICS, completed_requests
from gpu_simulate_test.io.workload import Workload


def import_recorded(config: RealBenchConfig, record: HydraRecord, workload: Workload, run_id: str, run: RunDir) -> None:
    """Write a recorded run as a run directory; what was not recorded stays missing.

    The time of each token is not: ``token_metrics.csv`` has no rows. Nor are iterations. The engine's limits are those
    of the settings.

    Raises
    ------
    ConfigError
        ``backend.requests`` is missing.
    ArtifactError
        The record is malformed, or of other requests than the workload's.
    """
    started = now()
    backend = config.backend
    if backend.requests is None:
        raise ConfigError("backend.requests is missing: name the file of recorded requests")
    source = Path(backend.requests)
    recorded = read_recorded(source)
    asked = workload.lengths[list(LENGTHS)].assign(arrival_time_ns=workload.arrival_time_ns)
    if len(recorded) != len(asked) or not (recorded[list(asked)].to_numpy() == asked.to_numpy()).all():
        raise ArtifactError(
            f"recorded run of other requests than the workload's: {source} and {workload.path}; "
            f"run workload-spec with workload=trace workload.trace={source}"
        )
    times = recorded.assign(
        request_id=workload.lengths["request_id"],
        num_decode_tokens_actual=recorded["num_decode_tokens"],
        num_preemptions=pd.array([pd.NA] * len(recorded), dtype="Int64"),
    )
    requests = completed_requests(times, backend.name)
    tokens = pd.DataFrame({name: pd.array([], dtype="Int64") for name in TOKEN_METRICS.required})
    run.write_table(REQUEST_METRICS, requests)
    run.write_table(TOKEN_METRICS, tokens)
    engine = {
        "name": backend.name,
        "max_num_seqs": backend.max_num_seqs,
        "max_num_batched_tokens": backend.max_num_batched_tokens,
        "block_size": backend.block_size,
        "num_blocks": backend.num_blocks,
        "dtype": config.hardware.dtype,
        "device": config.hardware.device,
    }
    lines = [f"# Recorded run {run_id}", "", f"- {len(requests)} requests of {source.name}"]
    lines += ["- engine limits as the settings state them: they were not recorded"]
    run.write_text("summary.md", "\n".join([*lines, *latency_lines(requests, tokens)]) + "\n")
    run.finish(
        run_meta(
            run_id,
            "real",
            config,
            record,
            started,
            workload_dir=str(workload.path.absolute()),
            workload_sha256=workload.sha256,
            backend=backend.name,
            engine=engine,
            source=str(source.absolute()),
        )
        | {"env": {}}  # of the machine that served, which is not this one
    )
