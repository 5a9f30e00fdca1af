"""real-bench on the baseline: every repeat, every token timed."""

from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.io.workload import load_workload
from tests.manual import (
    CONFIG,
    MODEL_ID,
    NUM_DECODE_TOKENS,
    NUM_PROMPTS,
    device_name,
    need_device,
    need_model_files,
    run_stage,
)


def test_the_workload_is_served_and_every_token_is_timed() -> None:
    need_model_files()
    need_device()
    path = run_stage("real-bench")
    workload = load_workload(run_stage("workload-spec"), MODEL_ID)
    first = load_run(path, "real")
    repeats = first.meta["repeat_run_dirs"]
    assert repeats == [path.name, *(f"{path.name}-r{number}" for number in range(2, CONFIG.repeats + 1))]
    for name in repeats:
        run = load_run(path.with_name(name), "real")  # refuses tables that contradict themselves
        assert run.missing == []
        assert run.requests["status"].tolist() == ["ok"] * NUM_PROMPTS
        assert (run.requests["num_decode_tokens_actual"] == NUM_DECODE_TOKENS).all()
        assert len(run.tokens) == NUM_PROMPTS * NUM_DECODE_TOKENS
        assert run.iterations is not None
        assert run.iterations["num_prefill_tokens"].sum() == workload.lengths["num_prefill_tokens"].sum()
        assert run.meta["run_type"] == "real"
        assert run.meta["model"] == MODEL_ID
        assert run.meta["workload_sha256"] == workload.sha256
        engine = run.meta["engine"]
        assert engine["name"] == "transformers"
        assert (engine["device"], engine["dtype"]) == (CONFIG.hardware.device, CONFIG.hardware.dtype)
        assert engine["num_blocks"] * engine["block_size"] >= NUM_DECODE_TOKENS
        assert engine["details"]["device_name"] == device_name()
