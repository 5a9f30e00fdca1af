"""The Sarathi-Serve backend: always against recorded signatures; against a checkout where SARATHI_SRC names one."""

import ast
import inspect
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.paths import project_root
from gpu_simulate_test.engine import Composition, EngineRequest, MonotonicClock, Step
from gpu_simulate_test.errors import MachineError
from gpu_simulate_test.real_bench.backends import create_engine
from gpu_simulate_test.vidur_ext.device_config import register_device
from gpu_simulate_test.vidur_ext.qwen3_model_config import register_model
from gpu_simulate_test.vidur_ext.simulation import simulate
from gpu_simulate_test.vidur_ext.vidur_config import SimSettings
from tests.support import sarathi_api
from tests.support.configs import typed_config
from tests.support.latency import Costs
from tests.support.sarathi_checkout import checkout_or_skip, importable_or_skip
from tests.support.virtual_engine import VirtualClock, affine_cost, requests_of, served

BACKENDS = project_root() / "src/gpu_simulate_test/real_bench/backends"
OURS = ("sarathi_backend", "sarathi_qwen3")
OVERRIDES = {
    "_ModelConfig.get_head_size": "sarathi.config.config:ModelConfig.get_head_size",
    "LimitedEngine._get_worker_impl": "sarathi.engine.base_llm_engine:BaseLLMEngine._get_worker_impl",
    "LimitedEngine._run_workers": "sarathi.engine.base_llm_engine:BaseLLMEngine._run_workers",
    "Qwen3Attention.forward": "sarathi.model_executor.models.llama:LlamaAttention.forward",
    "Qwen3ForCausalLM.load_weights": "sarathi.model_executor.models.llama:LlamaForCausalLM.load_weights",
}


# ---- without a checkout


def bind_calls(source: str) -> list[str]:
    """Bind every call of something imported from Sarathi-Serve, or of a method of theirs, to its signature."""
    record = sarathi_api.recorded()
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sarathi"):
            for alias in node.names:
                (key,) = [key for key in record if key.endswith(f":{alias.name}")]
                names[alias.asname or alias.name] = key
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not any(getattr(f, "name", "") == "__init__" for f in node.body):
            for base in node.bases:
                names[node.name] = names.get(getattr(base, "id", ""), "")
    methods = {
        key.rpartition(".")[2]: key for key in record if "." in key.split(":")[1] and key not in OVERRIDES.values()
    }
    bound = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = names.get(getattr(node.func, "id", "")) or methods.get(getattr(node.func, "attr", ""))
        if called:
            keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            sarathi_api.signature(record[called]).bind(*node.args, **keywords)
            bound.append(called.split(":")[1])
    return bound


def test_every_call_of_ours_fits_the_recorded_signatures() -> None:
    bound = [call for name in OURS for call in bind_calls((BACKENDS / f"{name}.py").read_text(encoding="utf-8"))]
    assert {"SystemConfig", "ModelConfig", "SamplingParams", "BaseLLMEngine.add_request", "BaseLLMEngine.step"} <= set(
        bound
    )
    assert {"ColumnParallelLinear", "RMSNorm", "get_rope", "BaseAttentionWrapper.forward"} <= set(bound)


@pytest.mark.parametrize(
    "call", ["CacheConfig(blocks=1)", "SamplingParams(1, 2, 3, 4, 5, 6, 7)", "engine.add_request('')"]
)
def test_a_call_that_does_not_fit_is_found(call: str) -> None:
    with pytest.raises(TypeError):
        bind_calls(f"from sarathi import SamplingParams\nfrom sarathi.config import CacheConfig\n{call}\n")


@pytest.mark.parametrize(("ours", "theirs"), OVERRIDES.items())
def test_what_we_override_takes_what_theirs_takes(ours: str, theirs: str) -> None:
    owner, method = ours.split(".")
    defined = [
        entry
        for name in OURS
        for node in ast.parse((BACKENDS / f"{name}.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == owner
        for entry in node.body
        if isinstance(entry, ast.FunctionDef) and entry.name == method
    ]
    parameters = sarathi_api._arguments(defined[0].args, drop_self=True)
    named = [
        parameter.name
        for parameter in sarathi_api.signature(sarathi_api.recorded()[theirs]).parameters.values()
        if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    sarathi_api.signature(parameters).bind(**dict.fromkeys(named))


@pytest.fixture
def fresh_import(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    ours = "gpu_simulate_test.real_bench.backends.sarathi_backend"
    monkeypatch.delitem(sys.modules, ours, raising=False)
    yield monkeypatch
    sys.modules.pop(ours, None)


def start() -> None:
    config = typed_config("real_bench", "experiment=cpu_demo", "backend=sarathi")
    create_engine(config.backend, config.limits, config.model, config.hardware, MonotonicClock())


def test_without_sarathi_serve_the_recipe_is_named(fresh_import: pytest.MonkeyPatch) -> None:
    fresh_import.setitem(sys.modules, "sarathi", None)
    with pytest.raises(MachineError, match=r"needs sarathi, which is not installed.*extern/README\.md"):
        start()


def test_the_unrelated_program_of_that_name_is_refused(fresh_import: pytest.MonkeyPatch) -> None:
    unrelated = types.ModuleType("sarathi")
    unrelated.__file__ = "site-packages/sarathi/__init__.py"
    fresh_import.setitem(sys.modules, "sarathi", unrelated)
    with pytest.raises(MachineError, match=r"not Sarathi-Serve: site-packages.*extern/README\.md"):
        start()


# ---- with one


@pytest.fixture(scope="module")
def stand_in() -> Any:
    importable_or_skip()
    from tests.support import sarathi_stand_in

    return sarathi_stand_in


def test_the_checkout_has_the_recorded_signatures() -> None:
    record = sarathi_api.recorded()
    assert sarathi_api.live(checkout_or_skip(), list(record)) == record


@pytest.mark.parametrize(("hardware", "message"), [("cpu", "needs a GPU: hardware=cpu"), ("a100", "no GPU")])
def test_without_a_gpu_it_does_not_start(stand_in: Any, hardware: str, message: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = typed_config("real_bench", "model=qwen3_tiny", "backend=sarathi", f"hardware={hardware}")
    with pytest.raises(MachineError, match=message):
        create_engine(config.backend, config.limits, config.model, config.hardware, MonotonicClock())


def tokens_of(steps: list[Step]) -> dict[int, list[int]]:
    made: dict[int, list[int]] = {}
    for step in steps:
        for token in step.tokens:
            made.setdefault(token.request_id, []).append(token.token_id)
    return made


def test_its_real_engine_serves_a_replay_over_zeromq(stand_in: Any, tmp_path: Path) -> None:
    from gpu_simulate_test.real_bench.backends import sarathi_backend, sarathi_worker

    overrides = (
        "limits.max_num_seqs=6",
        "limits.max_num_batched_tokens=64",
        "limits.num_blocks=200",
        "hardware.dtype=float16",
    )
    config = typed_config("real_bench", "experiment=cpu_demo", "backend=sarathi", *overrides)
    sarathi_worker.start_ray()
    engine = sarathi_backend.SarathiEngine(
        stand_in.StandInEngine(
            sarathi_backend.system_config(config.backend, config.limits, config.model, tmp_path), num_blocks=200
        ),
        config.hardware,
        MonotonicClock(),
    )
    try:
        info = engine.info()
        limits = info.limits
        assert (limits.num_blocks, limits.block_size, limits.max_num_seqs) == (200, 16, 6)
        assert (limits.max_num_batched_tokens, limits.watermark) == (64, 0.01)
        assert info.max_model_len == (200 - 2) * 16  # a hundredth is the watermark
        rng = np.random.default_rng(0)
        lengths = [
            (int(prompt), int(output))
            for prompt, output in zip(rng.integers(1, 200, 40), rng.integers(1, 30, 40), strict=True)
        ]
        lengths[7] = (3166, 3)
        steps, failures = served(engine, requests_of(lengths), np.arange(40) * 2_000_000, MonotonicClock())
        assert {request: failure.error_type for request, failure in failures.items()} == {7: "ValueError"}
        del lengths[7]
        made = tokens_of(steps)
        outputs = [made[request] for request in sorted(made)]
        assert outputs == [list(range(prompt, prompt + output)) for prompt, output in lengths]
        batches = [Composition.of(step.batch) for step in steps]
        assert sum(batch.num_prefill_tokens for batch in batches) == sum(prompt for prompt, _ in lengths)
        assert sum(batch.num_decode_seqs for batch in batches) == sum(output - 1 for _, output in lengths)
        assert max(batch.num_prefill_tokens + batch.num_decode_seqs for batch in batches) == 64
        assert max(len(step.batch) for step in steps) <= 6
        engine.submit(EngineRequest(99, [stand_in.POISON], 3))
        with pytest.raises(MachineError, match="worker died"):
            engine.step()
    finally:
        engine.close()


def on_virtual_clock(stand_in: Any, scheduler: Any, num_blocks: int, clock: VirtualClock) -> Any:
    """Our backend over their engine and scheduler; a step takes what its batch costs."""
    from gpu_simulate_test.real_bench.backends.sarathi_backend import SarathiEngine

    theirs = stand_in.engine_in_process(scheduler, num_blocks)
    engine = SarathiEngine(theirs, typed_config("real_bench", "hardware=cpu").hardware, clock)
    step = theirs.step

    def timed() -> Any:
        outputs = step()
        clock.time_ns += affine_cost(Composition.of(engine._batch))
        return outputs

    theirs.step = timed
    return engine


def test_a_preempted_request_gets_the_tokens_it_asked_for_and_no_more(stand_in: Any) -> None:
    from sarathi.config import SarathiSchedulerConfig

    clock = VirtualClock()
    engine = on_virtual_clock(stand_in, SarathiSchedulerConfig(max_num_seqs=4, chunk_size=64), 8, clock)
    lengths = [(40, 40), (40, 40)]
    steps, failures = served(engine, requests_of(lengths), [0, 1], clock)
    assert tokens_of(steps) == {0: list(range(40, 80)), 1: list(range(40, 80))}
    assert {request for step in steps for request in step.preempted} == {1}
    assert not failures
    ended = [step for step in steps for token in step.tokens if token.finished]
    assert len(ended) == 2
    assert steps[-1] is not ended[-1]  # the engine went on: it counts from the preemption


def test_a_request_that_alone_fills_the_cache_is_refused(stand_in: Any) -> None:
    from sarathi.config import SarathiSchedulerConfig

    clock = VirtualClock()
    engine = on_virtual_clock(stand_in, SarathiSchedulerConfig(max_num_seqs=4, chunk_size=64), 8, clock)
    steps, failures = served(engine, requests_of([(100, 12), (100, 13)]), [0, 1], clock)
    assert {request: failure.error_type for request, failure in failures.items()} == {1: "ValueError"}
    assert tokens_of(steps) == {0: list(range(100, 112))}


# ---- parity with Vidur


Batches = list[list[tuple[int, int, int, bool]]]  # request, tokens, cached tokens, of the prompt


def simulated(settings: SimSettings, lengths: list[tuple[int, int]], arrivals: np.ndarray) -> tuple[Batches, Any]:
    batches: Batches = []

    def look_at(batch: Any) -> None:
        batches.append(
            sorted(
                (
                    request.id,
                    tokens,
                    request.num_processed_tokens - (1 if request.is_prefill_complete else 0),
                    not request.is_prefill_complete,
                )
                for request, tokens in zip(batch.requests, batch.num_q_tokens, strict=True)
            )
        )

    result = simulate(settings, Costs(affine_cost), ArrivalProcess.at(arrivals), *np.array(lengths).T, look_at=look_at)
    first = min(request for batch in batches for request, *_ in batch)
    return [[(request - first, *rest) for request, *rest in batch] for batch in batches], result


@pytest.mark.parametrize("name", ["sarathi", "vllm"])
@pytest.mark.parametrize("seed", range(10))
def test_its_schedulers_and_vidurs_make_the_same_batches(stand_in: Any, name: str, seed: int) -> None:
    """The same without a preemption, and for some time with one; even seeds have few KV blocks.

    Vidur takes a preempted request back in the same iteration where it fits; Sarathi-Serve has not reset it by then.
    Later it makes more tokens than were asked.
    """
    from sarathi.config import SarathiSchedulerConfig, VllmSchedulerConfig

    config = typed_config("vidur_sim", "experiment=cpu_demo")
    register_model(config.model)
    register_device(config.hardware)
    rng = np.random.default_rng(seed)
    few = seed % 2 == 0
    cap, num_blocks = (
        int(rng.integers(*limits)) for limits in (((10, 17), (100, 130)) if few else ((3, 17), (300, 900)))
    )
    budget = int(rng.integers(32, 257)) if name == "sarathi" else 512
    lengths = list(zip(rng.integers(1, 300, 40).tolist(), rng.integers(1, 60, 40).tolist(), strict=True))
    arrivals = np.cumsum(rng.integers(0, 5_000_000 if few else 40_000_000, 40))
    scheduler = (
        SarathiSchedulerConfig(max_num_seqs=cap, chunk_size=budget)
        if name == "sarathi"
        else VllmSchedulerConfig(max_num_seqs=cap, max_batched_tokens=budget)
    )
    clock = VirtualClock()
    engine = on_virtual_clock(stand_in, scheduler, num_blocks, clock)
    steps, _ = served(engine, requests_of(lengths), arrivals, clock)
    limits = EngineLimits(
        max_num_seqs=cap, max_num_batched_tokens=budget, block_size=16, num_blocks=num_blocks, watermark=0.01
    )
    settings = SimSettings("gsim/qwen3-tiny", "cpu", "cpu_node", name, limits)
    batches, result = simulated(settings, lengths, arrivals)

    made: Counter[int] = Counter()
    tokens: list[list[int]] = [[] for _ in lengths]
    agreed = 0
    for step, simulated_batch in zip(steps, batches, strict=False):
        batch = sorted((seq.request_id, seq.num_tokens, seq.num_cached, seq.is_prefill) for seq in step.batch)
        if any(made[request] == lengths[request][1] for request, *_ in batch):
            break  # surplus
        if batch != simulated_batch:
            assert [entry for entry in batch if entry[0] not in step.preempted] == [
                entry for entry in simulated_batch if entry[0] not in step.preempted
            ]
            break
        for token in step.tokens:
            made[token.request_id] += 1
            tokens[token.request_id].append(agreed)
        agreed += 1
    num_preempted = sum(len(step.preempted) for step in steps)
    until_then = sum(len(step.preempted) for step in steps[:agreed])
    print(f"{name}, seed {seed}: {agreed} of {len(batches)} batches, {until_then} of {num_preempted} preemptions")
    if not num_preempted:
        assert agreed == len(steps) == len(batches)
    assert agreed >= 40
    numbers = np.split(result.token_iterations(), np.cumsum(result.token_counts())[:-1])
    assert tokens == [one[one < agreed].tolist() for one in numbers]
