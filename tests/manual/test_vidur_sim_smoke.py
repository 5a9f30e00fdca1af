"""vidur-sim on the baseline: the same workload, simulated from the device's profile."""

from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.io.workload import load_workload
from tests.manual import MODEL_ID, NUM_DECODE_TOKENS, NUM_PROMPTS, need_device, need_model_files, run_stage


def test_every_request_is_simulated_token_by_token() -> None:
    need_model_files()
    need_device()
    path = run_stage("vidur-sim")
    workload = load_workload(run_stage("workload-spec"), MODEL_ID)
    run = load_run(path, "vidur")  # refuses tables that contradict themselves
    assert run.meta["workload_sha256"] == workload.sha256
    assert run.meta["profiling_root"] == str(run_stage("vidur-profile"))
    assert run.meta["predictor"] == "iteration"
    assert run.meta["settings"]["scheduler"] == "sarathi"
    assert run.missing == []
    assert run.requests["status"].tolist() == ["ok"] * NUM_PROMPTS
    assert run.requests["arrival_time_ns"].tolist() == workload.arrivals.known_ns.tolist()
    assert len(run.tokens) == NUM_PROMPTS * NUM_DECODE_TOKENS
    assert run.iterations is not None
    assert (run.iterations["predicted_ns"] > 0).all()
    assert run.iterations["in_profile"].dtype == bool
