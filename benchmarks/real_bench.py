"""real-bench at full load against transformers' own generation loop: what measuring costs the engine."""

import gc
from statistics import median

import numpy as np
from hydra import compose, initialize_config_dir

from benchmarks.table import Row, Scale
from benchmarks.timing import in_turn, seconds
from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.cli.app import typed_config
from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import RealBenchConfig
from gpu_simulate_test.engine import EngineRequest, MonotonicClock
from gpu_simulate_test.io.workload import random_token_ids
from gpu_simulate_test.real_bench.backends.transformers_backend import TransformersEngine, create
from gpu_simulate_test.real_bench.guard import GuardedEngine
from gpu_simulate_test.real_bench.replay import replay

PROMPT_TOKENS, OUTPUT_TOKENS = 64, 32


def rows(scale: Scale) -> list[Row]:
    """All requests at once on the demo's tiny model, in turn through our replay and through the bare loop."""
    register_resolvers()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = typed_config("real_bench", compose("real_bench", overrides=["experiment=cpu_demo"]))
    assert isinstance(config, RealBenchConfig)
    clock = MonotonicClock()
    engine = create(config.backend, config.limits, config.model, config.hardware, clock)
    count = 128 if scale == "full" else 32
    requests = [
        EngineRequest(index, random_token_ids(f"{index}", PROMPT_TOKENS, config.model.vocab_size), OUTPUT_TOKENS)
        for index in range(count)
    ]
    guarded = GuardedEngine(engine, clock, config.request_timeout_s)
    at_once = ArrivalProcess.at(np.zeros(count, dtype=np.int64))

    def ours() -> float:
        gc.collect()
        return seconds(lambda: replay(guarded, requests, at_once, clock))

    def bare() -> float:
        gc.collect()
        return seconds(lambda: _generate(engine, requests))

    ours_s, bare_s = map(median, in_turn([ours, bare], rounds=9 if scale == "full" else 5))
    guarded.close()
    tokens = count * OUTPUT_TOKENS
    return [
        Row(
            f"real-bench, {count} requests at once, against transformers' bare loop on the same requests",
            f"{tokens / ours_s:.0f} and {tokens / bare_s:.0f} output tokens/s",
            ratio=bare_s / ours_s,
            at_least=0.97,
        )
    ]


def _generate(engine: TransformersEngine, requests: list[EngineRequest]) -> None:
    """The library's loop, as its `generate_batch` runs it in a thread, with nothing recorded."""
    manager, processor, model = engine._manager, engine._processor, engine._model
    for request in requests:
        manager.add_request(
            input_ids=list(request.token_ids),
            request_id=str(request.request_id),
            max_new_tokens=request.max_new_tokens,
            eos_token_id=-1,
        )
    while not manager.input_queue.empty() or processor.has_pending_requests():
        assert processor.prepare_next_batch()
        processor._generation_step(model)
        processor.update_batch()
    while not manager.output_router.output_queue.empty():
        manager.output_router.output_queue.get_nowait()
