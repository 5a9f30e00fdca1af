"""A model over more GPUs, stages and in fewer bits: simulated capacity, and what must hold of it.

Capacity is output tokens a second of requests that all come at once. A request alone is held against the operator
database's own static estimate, with experts loaded evenly on both sides. What does not hold is said in its row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from hydra import compose, initialize_config_dir

from benchmarks.table import Row, Scale
from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.cli.app import typed_config
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import EngineLimits, VidurProfileConfig
from gpu_simulate_test.errors import ConfigError, MachineError
from gpu_simulate_test.io.profile_tables import KERNELS
from gpu_simulate_test.latency.kernels import KernelModel, Kernels, pipeline
from gpu_simulate_test.latency.model import LatencyModel
from gpu_simulate_test.profiles.operator_db import fill
from gpu_simulate_test.profiles.operator_prices import model_folder
from gpu_simulate_test.simulator.cluster import Core
from gpu_simulate_test.timeline import Timeline

MODELS = ("meta-llama/Meta-Llama-3.1-70B", "mistralai/Mixtral-8x7B-v0.1")
SYSTEMS = ("h100_sxm", "h200_sxm", "b200_sxm")
SPLITS = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (4, 2))  # GPUs a layer, pipeline stages
REQUESTS, PROMPT, OUTPUT = 300, 512, 128
CHECKS = (
    "more GPUs a layer, more tokens",
    "twice the GPUs, less than twice the tokens",
    "FP8 no slower",
    "two stages serve more than one",
    "a request alone is no sooner through two stages",
    "a request alone within 3 % of the database's own estimate",
)


class Case(NamedTuple):
    """What is simulated."""

    model: str
    system: str
    fp8: bool
    tensor: int
    stages: int

    def __str__(self) -> str:
        split = f"TP {self.tensor}" + (f" PP {self.stages}" if self.stages > 1 else "")
        return f"{self.model.partition('/')[2]}, {self.system}, {'FP8' if self.fp8 else 'BF16'}, {split}"


@dataclass(frozen=True)
class Figures:
    """Of a case that fits: output tokens a second, ms of a request alone and by the database, tokens of the cache."""

    per_s: float
    alone_ms: float
    theirs_ms: float
    cache: int
    preemptions: int

    @property
    def crowded(self) -> bool:
        """Whether the cache holds fewer requests than a batch may."""
        return self.cache < _limits(1, 1, False).max_num_seqs * (PROMPT + OUTPUT)


def rows(scale: Scale) -> Iterator[Row]:
    """A row a case, on one system or on all; then, a row each, what must hold and where it does not."""
    exceptions: dict[str, list[str]] = {check: [] for check in CHECKS}
    simulated = 0
    for model in MODELS:
        for system in SYSTEMS if scale == "full" else SYSTEMS[:1]:
            done: dict[Case, Figures] = {}
            for case in (Case(model, system, fp8, *split) for fp8 in (False, True) for split in SPLITS):
                try:
                    found = done[case] = _figures(case)
                except (ConfigError, MachineError) as error:
                    yield Row(str(case), f"not simulated: {str(error).partition(': ')[0]}")
                    continue
                simulated += 1
                missed = broken(case, found, done)
                for check, why in missed.items():
                    exceptions[check].append(f"{case} ({why})")
                yield Row(str(case), _said(found) + "".join(f"; not: {check} ({why})" for check, why in missed.items()))
    for check, cases in exceptions.items():
        said = f"{len(cases)} exceptions in {simulated} cases"
        yield Row(check, ": ".join([said, "; ".join(cases)] if cases else [said]), len(cases), at_most=0)


def _said(found: Figures) -> str:
    apart = found.alone_ms / found.theirs_ms - 1
    crowded = f", cache of {found.cache:,} tokens, {found.preemptions} preemptions" if found.crowded else ""
    return f"{found.per_s:,.0f} tokens/s{crowded}; a request alone {found.alone_ms:,.0f} ms, {apart:+.1%} of theirs"


def broken(case: Case, found: Figures, done: dict[Case, Figures]) -> dict[str, str]:
    """The checks that do not hold, against the cases before, and by how much."""
    missed = {}
    half = done.get(case._replace(tensor=case.tensor // 2))
    if half is not None and case.stages == 1:
        gain = found.per_s / half.per_s
        why = f"{gain:.2f} times" + (", half of them are short of cache" if half.crowded else "")
        if gain <= 1:
            missed[CHECKS[0]] = why
        if gain >= 2:
            missed[CHECKS[1]] = why
    plain = done.get(case._replace(fp8=False))
    if case.fp8 and plain is not None and found.per_s < plain.per_s:
        theirs = plain.theirs_ms / found.theirs_ms
        missed[CHECKS[2]] = f"{found.per_s / plain.per_s:.2f} times; of a request alone, theirs says {theirs:.2f}"
    single = done.get(case._replace(stages=1))
    if case.stages > 1 and single is not None:
        if found.per_s <= single.per_s:
            missed[CHECKS[3]] = f"{found.per_s / single.per_s:.2f} times"
        if found.alone_ms < single.alone_ms:
            missed[CHECKS[4]] = f"{found.alone_ms / single.alone_ms:.2f} times"
    if abs(apart := found.alone_ms / found.theirs_ms - 1) > 0.03:
        missed[CHECKS[5]] = f"{apart:+.1%}"
    return missed


def _figures(case: Case) -> Figures:
    config = _config(case.model, case.system)
    limits = _limits(case.tensor, case.stages, case.fp8)
    model = config.model.model_copy(update={"quantization": "fp8" if case.fp8 else None})
    contents = fill(config.model_copy(update={"limits": limits, "model": model}))
    cache: int = contents.meta["kv_tokens"]
    if cache < PROMPT + OUTPUT:
        raise ConfigError(f"the KV cache holds {cache} tokens, and a request needs {PROMPT + OUTPUT}")
    kernels = Kernels(**{name: contents.tables[table] for name, table in KERNELS.items()})
    layers = config.model.num_layers
    latency: LatencyModel = KernelModel(None, kernels, layers)
    if case.stages > 1:
        latency = pipeline(kernels, case.stages, layers)
    limits = limits.model_copy(update={"num_blocks": cache // limits.block_size})
    crowd, alone = (_served(config, limits, latency, count) for count in (REQUESTS, 1))
    return Figures(
        REQUESTS * OUTPUT / float(crowd.end_ns.max()) * 1e9,
        float(alone.end_ns.max()) / 1e6,
        _theirs_ms(case),
        cache,
        sum(crowd.restarts),
    )


def _served(config: VidurProfileConfig, limits: EngineLimits, latency: LatencyModel, count: int) -> Timeline:
    requests = ArrivalProcess.at(np.zeros(count, dtype=np.int64)), np.full(count, PROMPT), np.full(count, OUTPUT)
    if limits.pipeline_parallel == 1:
        return Core(limits, requests).run(latency)
    from gpu_simulate_test.vidur_ext.device_config import register_device
    from gpu_simulate_test.vidur_ext.qwen3_model_config import register_model
    from gpu_simulate_test.vidur_ext.simulation import simulate
    from gpu_simulate_test.vidur_ext.vidur_config import SimSettings

    register_model(config.model)
    register_device(config.hardware)
    device = config.hardware.vidur_device, config.hardware.vidur_network_device
    return simulate(SimSettings(config.model.id, *device, "sarathi", limits), latency, *requests)


def _theirs_ms(case: Case) -> float:
    """A request alone, by the database's own arithmetic."""
    import aiconfigurator_core
    from aiconfigurator_core.sdk.config_builders import build_model_config
    from aiconfigurator_core.sdk.engine import EngineHandle, build_engine_spec_json
    from aiconfigurator_core.sdk.models import get_model
    from aiconfigurator_core.sdk.perf_database import get_database, get_version_slots

    kinds = ("gemm_quant_mode", "moe_quant_mode", "kvcache_quant_mode")
    asked = build_model_config(
        tp_size=case.tensor,
        pp_size=case.stages,
        attention_dp_size=1,
        moe_tp_size=case.tensor if _config(case.model, case.system).model.num_experts else 1,
        moe_ep_size=1,
        **(dict.fromkeys(kinds, "fp8") if case.fp8 else {}),
    )
    asked.workload_distribution = "balanced"
    version = get_version_slots(case.system, "vllm")["current"]
    with model_folder(_config(case.model, case.system).model) as folder:
        spec: Any = build_engine_spec_json(
            get_model(str(folder), asked, "vllm"),
            model_path=str(folder),
            system=case.system,
            backend="vllm",
            backend_version=version,
            kv_block_size=None,
            systems_path=None,
            nextn=0,
            database=get_database(case.system, "vllm", version),
        )
    engine = EngineHandle(aiconfigurator_core.engine_spec_bincode_from_json(spec))
    prompt = engine.predict_prefill_latency(1, PROMPT, 0)
    return float(prompt + engine.predict_decode_latency(1, PROMPT, OUTPUT))


def _limits(tensor: int, stages: int, fp8: bool) -> EngineLimits:
    return EngineLimits(
        max_num_seqs=256,
        max_num_batched_tokens=8192,
        block_size=16,
        num_blocks=0,
        tensor_parallel=tensor,
        pipeline_parallel=stages,
        kv_cache_dtype="fp8" if fp8 else "auto",
    )


@cache
def _config(model: str, system: str) -> VidurProfileConfig:
    register_resolvers()
    choices = ["model=hf", f"model.id={model}", "hardware=gpu", f"hardware.name={system}", "profile=operator_db"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = typed_config("vidur_profile", compose("vidur_profile", overrides=choices))
    assert isinstance(config, VidurProfileConfig)
    return config
