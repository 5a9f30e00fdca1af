"""workload-spec on the baseline: the shipped prompts in the model's own tokens."""

from gpu_simulate_test.io.workload import load_workload, read_prompts
from tests.manual import CONFIG, MODEL_ID, NUM_DECODE_TOKENS, NUM_PROMPTS, need_model_files, run_stage


def test_the_shipped_prompts_become_a_workload() -> None:
    need_model_files()
    workload = load_workload(run_stage("workload-spec"), MODEL_ID)
    assert workload.meta["model"] == MODEL_ID
    if CONFIG.model.tokenizer == "source":
        assert workload.meta["tokenizer_ref"].startswith(f"{MODEL_ID} tokenizer.json sha256:")
    assert len(workload) == NUM_PROMPTS
    assert (workload.lengths["num_decode_tokens"] == NUM_DECODE_TOKENS).all()
    assert workload.arrivals.known_ns[0] == 0
    assert (workload.arrivals.known_ns[1:] > 0).all()
    prompts = list(read_prompts(workload.path / "prompts.jsonl"))
    assert [len(prompt["token_ids"]) for prompt in prompts] == workload.lengths["num_prefill_tokens"].tolist()
