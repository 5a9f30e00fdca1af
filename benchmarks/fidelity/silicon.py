"""Real closed-loop runs that the operator database ships as means: half of them, the other is kept for a blind check.

Each is served again by the simulator, with the settings that its benchmark published. Those of `InferenceX` are in its
repository, with the client: ten requests for each of the concurrent ones, all of these at once at first, lengths
uniform from 80 to 100 % of the nominal ones. Means are over all requests, the first burst included, for so they were
taken. Of the others only lengths and concurrency are told: they are simulated alike, with fixed lengths.
"""

import hashlib
import importlib.util
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.cli.app import typed_config
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import EngineLimits, VidurProfileConfig
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.profile_tables import KERNELS
from gpu_simulate_test.latency.calibration import NOTHING, Calibrated, Constants
from gpu_simulate_test.latency.kernels import KernelModel, Kernels
from gpu_simulate_test.latency.model import LatencyModel
from gpu_simulate_test.profiles.operator_db import fill
from gpu_simulate_test.run_tables import first_and_last_tokens
from gpu_simulate_test.simulator.cluster import Core

ROUNDS = 10  # requests for each of the concurrent ones
_SHORTEST = 0.8  # of InferenceX' lengths, of the nominal ones
_MIXTURES = ("gpt-oss", "A22B")
# What the collection calls a model, and in how many bits: the database's model, and its weights where that is not all.
_MODELS = {
    ("meta-llama/Llama-3.1-70B", "fp8"): ("nvidia/Llama-3.1-70B-Instruct-FP8", None),
    ("meta-llama/Llama-3.1-70B", "fp4"): ("meta-llama/Meta-Llama-3.1-70B", "nvfp4"),
    ("openai/gpt-oss-120b", "fp4"): ("openai/gpt-oss-120b", None),  # it calls MXFP4 so
    ("Qwen/Qwen3-32B", "bf16"): ("Qwen/Qwen3-32B", None),
    ("Qwen/Qwen3-32B", "fp8"): ("Qwen/Qwen3-32B", "fp8"),
    ("Qwen/Qwen3-235B-A22B-FP8", "fp8"): ("Qwen/Qwen3-235B-A22B-FP8", None),
    ("nvidia/Llama-3.1-8B-Instruct-FP8", "fp8"): ("meta-llama/Meta-Llama-3.1-8B", "fp8_static"),
}
_FP8_CACHE = {"meta-llama/Llama-3.1-70B", "nvidia/Llama-3.1-8B-Instruct-FP8"}
_MEASURED = ["silicon_ttft_ms", "silicon_tpot_ms"]
_SERVED = ["model_path", "system", "precision", "tp_size", "moe_tp_size", "moe_ep_size", "isl", "osl", "batch_size"]


@dataclass(frozen=True)
class Point:
    """A real run.

    Attributes
    ----------
    id, digest : str
        Its name, and the MD5 of that.
    model, precision, system, version : str
        As the collection has them; the version of vLLM may be empty.
    tensor, expert : int
        GPUs that share a layer; groups of them that share the experts.
    prompt, output, concurrency : int
        Nominal tokens of a request; requests at a time.
    ttft_ms, tpot_ms : float
        Means over its requests.
    described : bool
        Whether its benchmark publishes how it serves and asks: InferenceX.
    """

    id: str
    digest: str
    model: str
    precision: str
    system: str
    version: str
    tensor: int
    expert: int
    prompt: int
    output: int
    concurrency: int
    ttft_ms: float
    tpot_ms: float
    described: bool

    @property
    def group(self) -> tuple[str, str, str]:
        """What runs on what: one kind of kernels."""
        return self.model.partition("/")[2], self.precision, self.system

    def settings(self) -> tuple[str, ...]:
        """Of the simulation, as they are typed.

        InferenceX sets `max_num_seqs` to the concurrency or to 512; either way it limits nothing. The others have
        vLLM 0.12's defaults on a GPU of 70 GB or more, where batches are not scheduled ahead yet.
        """
        model, weights = _MODELS[self.model, self.precision]
        fp8 = self.model in _FP8_CACHE or ("gpt-oss" in self.model and self.system == "b200_sxm" and self.version != "")
        return (
            "profile=operator_db",
            "hardware=gpu",
            f"hardware.name={self.system}",
            "model=hf",
            f"model.id={model}",
            f"model.quantization={weights or 'null'}",
            f"limits.max_num_seqs={512 if self.described else 1024}",
            "limits.max_num_batched_tokens=8192",
            f"limits.tensor_parallel={self.tensor}",
            f"limits.expert_parallel={self.expert}",
            f"limits.kv_cache_dtype={'fp8' if fp8 else 'auto'}",
            f"limits.async_scheduling={str(self.described).lower()}",
            "limits.enable_prefix_caching=false",  # no two prompts are alike
            "limits.reserve_whole_prompt=false",  # all are older than 0.19
        )

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and output tokens of each request, shape (n_requests,)."""
        size, random = ROUNDS * self.concurrency, np.random.default_rng(0)

        def drawn(nominal: int) -> np.ndarray:
            return random.integers(int(nominal * _SHORTEST) if self.described else nominal, nominal + 1, size)

        return drawn(self.prompt), drawn(self.output)


def collection() -> Path | None:
    """The file; None where the database is not installed."""
    found = importlib.util.find_spec("aiconfigurator_core")
    return Path(found.origin).parent / "systems" / "silicon_sample.csv" if found and found.origin else None


def points(path: Path) -> tuple[list[Point], Counter[str]]:
    """Dense models, gpt-oss and Qwen3's mixtures on vLLM, and why others of them are left out, with their number."""
    table = pd.read_csv(path)
    digests = table["id"].map(lambda name: hashlib.md5(name.encode(), usedforsecurity=False).hexdigest())
    table = table.assign(digest=digests)[digests.str[-1].isin(list("02468ace"))]  # nothing but these is ever looked at
    table = table[(table["backend"] == "vllm") & (table["mode"] == "agg")]
    table = table.fillna({"precision": "bf16", "backend_version": ""})
    known = pd.MultiIndex.from_frame(table[["model_path", "precision"]]).isin(list(_MODELS))
    table, left_out = table[known], Counter[str]()
    same = table.round(dict.fromkeys(_MEASURED, 4)).duplicated([*_SERVED, *_MEASURED])
    left_out["there twice"] = int(same.sum())
    found = []
    for row in table[~same].to_dict("records"):
        mixture = any(name in row["model_path"] for name in _MIXTURES)
        if mixture and row["tp_size"] != row["moe_tp_size"] * row["moe_ep_size"]:
            left_out["attention on several replicas that share the experts, which is not simulated"] += 1
        else:
            found.append(_point(row, mixture))
    return found, left_out


def _point(row: Mapping[Hashable, Any], mixture: bool) -> Point:
    return Point(
        id=row["id"],
        digest=row["digest"],
        model=row["model_path"],
        precision=row["precision"],
        system=row["system"],
        version=row["backend_version"],
        tensor=int(row["tp_size"]),
        expert=int(row["moe_ep_size"]) if mixture else 1,
        prompt=int(row["isl"]),
        output=int(row["osl"]),
        concurrency=int(row["batch_size"]),
        ttft_ms=float(row["silicon_ttft_ms"]),
        tpot_ms=float(row["silicon_tpot_ms"]),
        described="gap-analysis" not in row["silicon_data_source"],
    )


def simulate(point: Point, constants: Constants = NOTHING) -> tuple[float, float]:
    """Mean TTFT and TPOT, ms.

    Raises
    ------
    ConfigError
        The database has no such engine, model or size.
    """
    limits, latency = _deployment(point.settings())
    if constants is not NOTHING:
        latency = Calibrated(latency, constants, limits)
    prompts, outputs = point.lengths()
    if (longest := int((prompts + outputs).max())) > limits.kv_tokens:
        raise ConfigError(f"the KV cache holds {limits.kv_tokens} tokens, and a request needs {longest}")
    arrivals = ArrivalProcess.closed_loop(len(prompts), point.concurrency)
    line = Core(limits, (arrivals, prompts, outputs), "vllm_v1", constants=constants).run(latency)
    out_ms, sent_ms = line.out_ns / 1e6, np.array(line.arrival_ns) / 1e6
    first, last = (out_ms[one] for one in first_and_last_tokens(line))
    return float((first - sent_ms).mean()), float(((last - first) / (outputs - 1)).mean())


@cache
def _deployment(settings: Sequence[str]) -> tuple[EngineLimits, LatencyModel]:
    register_resolvers()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = typed_config("vidur_profile", compose("vidur_profile", overrides=list(settings)))
    assert isinstance(config, VidurProfileConfig)
    contents = fill(config)
    kernels = Kernels(**{name: contents.tables[table] for name, table in KERNELS.items()})
    blocks = int(contents.meta["kv_tokens"]) // config.limits.block_size
    return config.limits.model_copy(update={"num_blocks": blocks}), KernelModel(None, kernels, config.model.num_layers)
