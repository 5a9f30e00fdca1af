"""Eight published vLLM runs on H100s against simulations from the operator database, nothing fitted to any of them.

The one constant of the second part, what a client and a front end add to every first token, is taken from one run and
carried to the seven others.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.table import Row, Scale
from gpu_simulate_test.config.paths import project_root

RUNS = Path(os.environ.get("GST_SHARED_DATA", project_root().parent / "shared" / "data")) / "gpu-public/h100-vllm-0.15"
# Dimensions, GPUs and KV blocks as the data's own page tells them.
_LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000}
_MIXTRAL = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 32000}
_KEYS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")


@dataclass(frozen=True)
class _Deployment:
    gpus: int
    num_blocks: int
    config: Mapping[str, object]


def _deployment(gpus: int, num_blocks: int, family: dict[str, object], *sizes: int, **more: int) -> _Deployment:
    said = {**family, **dict(zip(_KEYS, sizes, strict=True)), **more}
    return _Deployment(gpus, num_blocks, {"max_position_embeddings": 4096, "torch_dtype": "bfloat16"} | said)


_DEPLOYMENTS = {
    "codellama-34b-tp2": _deployment(2, 26602, _LLAMA, 48, 8192, 64, 8, 22016, max_position_embeddings=16384),
    "llama-2-70b-tp4": _deployment(4, 31356, _LLAMA, 80, 8192, 64, 8, 28672),
    "llama-2-7b-tp1": _deployment(1, 7462, _LLAMA, 32, 4096, 32, 32, 11008),
    "mixtral-8x7b-tp2": _deployment(
        2, 27510, _MIXTRAL, 32, 4096, 32, 8, 14336, num_local_experts=8, num_experts_per_tok=2
    ),
}
_METRICS = ("e2e", "tpot", "ttft")
_LEVELS = (50, 90, 99)


@dataclass(frozen=True)
class Pair:
    """A real run and its simulation, ms, arrays of shape (n_requests,) by metric."""

    name: str
    real: Mapping[str, np.ndarray]
    sim: Mapping[str, np.ndarray]

    def error(self, metric: str, level: int, added_ms: float = 0.0) -> float:
        """Relative error of a percentile, with a constant added to every simulated value."""
        real, sim = (float(np.percentile(of[metric], level)) for of in (self.real, self.sim))
        return (sim + added_ms) / real - 1

    @cached_property
    def excess_ms(self) -> float:
        """The median of what the real first tokens took beyond the simulated ones."""
        return float(np.median(self.real["ttft"] - self.sim["ttft"]))


def rows(scale: Scale) -> Iterator[Row]:
    """A row a run, then the medians of the absolute errors; quick: the four shorter runs."""
    if not RUNS.is_dir():
        yield Row("H100 runs", f"not measured: they are not here: {RUNS.name}")
        return
    loads = ("codegen", "general") if scale == "full" else ("codegen",)
    pairs = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, deployment in _DEPLOYMENTS.items():
            for load in loads:
                pairs.append(_pair(Path(scratch), name, load, deployment))
                yield Row(pairs[-1].name, told(pairs[-1]))
    for metric, level, at_most in (("e2e", 50, 4), ("e2e", 99, 7), ("tpot", 50, 4), ("tpot", 99, 7), ("ttft", 50, 25)):
        errors = [100 * abs(pair.error(metric, level)) for pair in pairs]
        figure = f"median {np.median(errors):.1f} %, largest {max(errors):.1f} %"
        what = f"{len(pairs)} runs: absolute error of {metric.upper()} P{level}, %"
        yield Row(what, figure, ratio=float(np.median(errors)), at_most=at_most)
    for donor in pairs:
        errors = [100 * abs(pair.error("ttft", 50, donor.excess_ms)) for pair in pairs if pair is not donor]
        what = f"TTFT P50 of the others with the {donor.excess_ms:.1f} ms of {donor.name} added, absolute error, %"
        figure = f"median {np.median(errors):.1f} %, largest {max(errors):.1f} %"
        yield Row(what, figure, ratio=float(np.median(errors)), at_most=8)


def told(pair: Pair) -> str:
    """Errors at P50, P90 and P99."""
    return "; ".join(
        f"{metric.upper()} {', '.join(f'{100 * pair.error(metric, level):+.1f}' for level in _LEVELS)} %"
        for metric in _METRICS
    )


def _pair(scratch: Path, name: str, load: str, deployment: _Deployment) -> Pair:
    """Import the run, price its model, simulate it, by the commands that a user types."""
    folder = scratch / name / load
    model = folder / name
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(deployment.config), encoding="utf-8")
    settings = [
        f"output.root={folder}",
        "hardware=h100",
        "model=hf",
        f"model.config={model}",
        "backend=recorded",
        "backend.engine=vllm",
        "backend.engine_version=0.15.1",
        "profile=operator_db",
        "workload=trace",
        f"workload.trace={RUNS / f'{name}-{load}.csv.gz'}",
        "limits.max_num_seqs=128",
        "limits.max_num_batched_tokens=2048",
        f"limits.num_blocks={deployment.num_blocks}",
        f"limits.tensor_parallel={deployment.gpus}",
    ]
    run_command("workload_spec", *settings)
    real = run_command("real_bench", *settings)
    run_command("vidur_profile", *settings)
    sim = run_command("vidur_sim", *settings, f"real_run_dir={real}")
    return Pair(f"{name}-{load}", latencies(real), latencies(sim))


def run_command(stage: str, *settings: str) -> Path:
    """Run a stage as a user does; returns its run directory."""
    command = [sys.executable, "-m", f"gpu_simulate_test.cli.{stage}", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{stage}: {done.stderr.splitlines()[-1]}")
    return Path(done.stdout.splitlines()[-1])


def latencies(run: Path) -> dict[str, np.ndarray]:
    """Latencies of the requests that completed, ms, by metric."""
    requests = pd.read_csv(run / "request_metrics.csv")
    requests = requests[requests["status"] == "ok"]
    ttft, e2e = (
        (requests[column] - requests["arrival_time_ns"]).to_numpy() / 1e6
        for column in ("first_token_time_ns", "completion_time_ns")
    )
    return {"ttft": ttft, "e2e": e2e, "tpot": (e2e - ttft) / np.maximum(1, requests["num_decode_tokens_actual"] - 1)}
