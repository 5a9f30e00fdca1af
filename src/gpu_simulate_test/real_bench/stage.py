"""The real-bench stage: one engine, one workload, as many repeats as asked."""

import gc
import logging
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpu_simulate_test.config.schema import RealBenchConfig
from gpu_simulate_test.engine import Clock, Engine, EngineInfo, EngineRequest, ProfilableEngine
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.progress import Progress, progress
from gpu_simulate_test.io.provenance import now
from gpu_simulate_test.io.run_dir import OpenRunDir, RunDir
from gpu_simulate_test.io.summary import latency_lines
from gpu_simulate_test.io.tables import ITERATION_METRICS, REQUEST_METRICS, TOKEN_METRICS
from gpu_simulate_test.io.workload import PROMPTS, Workload, read_prompts, token_ids
from gpu_simulate_test.latency.reference_bursts import ReferenceBursts
from gpu_simulate_test.real_bench.metrics import Metrics, build_metrics
from gpu_simulate_test.real_bench.replay import replay, warm_up

log = logging.getLogger(__name__)

_WARMUP_OUTPUT_TOKENS = 8


def repeat_paths(path: Path, repeats: int) -> list[Path]:
    """Run directories of the repeats: the first is the run itself."""
    return [path, *(path.with_name(f"{path.name}-r{number}") for number in range(2, repeats + 1))]


def load_requests(workload: Workload, config: RealBenchConfig) -> list[EngineRequest]:
    """Requests of a workload as the engine takes them.

    Raises
    ------
    ArtifactError
        The prompts do not match the lengths.
    ConfigError
        A request exceeds the model's or the KV cache's limit.
    """
    decode = workload.lengths["num_decode_tokens"].tolist()
    prefill = workload.lengths["num_prefill_tokens"].tolist()
    names = workload.lengths["prompt_id"].tolist()
    prompts = [token_ids(prompt) or [] for prompt in read_prompts(workload.path / PROMPTS)]
    if [len(ids) for ids in prompts] != prefill:
        raise ArtifactError(f"prompts and lengths disagree: {workload.path}; run workload-spec again")
    limit = min(config.model.max_position_embeddings, config.limits.kv_tokens)
    for name, inputs, outputs in zip(names, prefill, decode, strict=True):
        if inputs + outputs > limit:
            raise ConfigError(
                f"{name} needs {inputs + outputs} tokens, above the model's or the KV cache's limit of "
                f"{limit}; raise limits.num_blocks or shorten the workload"
            )
    return [
        EngineRequest(index, ids, outputs, config.backend.ignore_eos)
        for index, (ids, outputs) in enumerate(zip(prompts, decode, strict=True))
    ]


def real_bench(
    config: RealBenchConfig,
    workload: Workload,
    requests: list[EngineRequest],
    runs: Sequence[OpenRunDir],
    engine: ProfilableEngine,
    clock: Clock,
) -> None:
    """Measure `workload` on an engine, once for each run directory.

    Parameters
    ----------
    requests : list of EngineRequest
        Those of the workload, from `load_requests`.
    runs : sequence of OpenRunDir
        The first repeat's metadata, which list the others, are written last of all.
    """
    info = engine.info()
    warm_up(engine, _warmup_requests(requests, config.backend.warmup_requests))
    log.info("serving %d requests, %d times", len(requests), len(runs))
    metas = []
    with progress("real-bench", len(runs) * len(requests), "requests") as bar:
        for number, run in enumerate(runs, start=1):
            bar.note(f"repeat {number} of {len(runs)}")
            run.started_at = now()
            bursts = ReferenceBursts()
            metrics = _measure(engine, requests, workload, clock, bursts, bar)
            _write(run, metrics)
            run.ended_at = now()
            metas.append(_meta_fields(workload, info, bursts))
            run.write_text("summary.md", _summary(run.name, metrics, info, workload))
    for run, meta in reversed(list(zip(runs, metas, strict=True))):
        first = {"repeat_run_dirs": [one.name for one in runs]}
        run.finish(run_type="real", **meta, **(first if run is runs[0] else {"repeat_of": runs[0].name}))


def _warmup_requests(requests: Sequence[EngineRequest], count: int) -> list[EngineRequest]:
    """Like the measured ones, so that their shapes have been seen; ids below 0 keep them apart."""
    picked = np.linspace(0, len(requests) - 1, num=count).astype(int)
    return [
        EngineRequest(
            -1 - number, requests[i].token_ids, min(_WARMUP_OUTPUT_TOKENS, requests[i].max_new_tokens), ignore_eos=True
        )
        for number, i in enumerate(picked)
    ]


def _measure(
    engine: Engine,
    requests: list[EngineRequest],
    workload: Workload,
    clock: Clock,
    speed: ReferenceBursts,
    bar: Progress,
) -> Metrics:
    """One replay, and the machine's speed meanwhile: before, after, and while the engine waits for requests."""
    gc.collect()
    gc.freeze()  # the model's own objects need not be walked again in the middle of a measurement
    speed.sample(engine, clock)
    keeps = engine.info().limits.enable_prefix_caching  # a burst in between would empty the cache
    line = replay(
        engine,
        requests,
        workload.arrivals,
        clock,
        bar.update,
        lambda deadline_ns: None if keeps else speed.watch(engine, clock, deadline_ns),
    )
    speed.sample(engine, clock)
    return build_metrics(workload, line, engine.info().name)


def _write(run: RunDir, metrics: Metrics) -> None:
    run.write_table(REQUEST_METRICS, metrics.requests)
    run.write_table(TOKEN_METRICS, metrics.tokens)
    run.write_table(ITERATION_METRICS, metrics.iterations)


def _meta_fields(workload: Workload, info: EngineInfo, speed: ReferenceBursts) -> dict[str, Any]:
    return {
        **workload.record(),
        "backend": info.name,
        "engine": info.record(),
        "reference_ns": speed.reference_ns,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _summary(run_id: str, metrics: Metrics, info: EngineInfo, workload: Workload) -> str:
    requests, tokens = metrics.requests, metrics.tokens
    ok = requests["status"] == "ok"
    lines = [
        f"# Real run {run_id}",
        "",
        f"- engine: {info.name} on {info.device}, {info.limits.dtype}",
        f"- workload: {workload.path.name}, {len(workload)} requests",
        f"- served: {int(ok.sum())}; failed: {int((~ok).sum())}",
        f"- iterations: {len(metrics.iterations)}; output tokens: {len(tokens)}",
    ]
    lines += latency_lines(metrics.latencies)
    lines.append("- not deterministic: times depend on the machine and on what else runs on it")
    return "\n".join(lines) + "\n"
