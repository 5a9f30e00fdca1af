"""compare-runs on the baseline: it finds the pair by itself and writes the whole report."""

import pandas as pd

from gpu_simulate_test.analysis.samples import METRICS
from gpu_simulate_test.io.run_dir import read_run_meta
from tests.manual import NUM_PROMPTS, need_device, need_model_files, run_stage


def test_the_newest_pair_is_compared_and_reported() -> None:
    need_model_files()
    need_device()
    path = run_stage("compare-runs")
    meta = read_run_meta(path)
    assert meta["run_type"] == "compare"
    assert meta["real_run_dir"] == str(run_stage("real-bench"))
    assert meta["sim_run_dir"] == str(run_stage("vidur-sim"))
    percentiles = pd.read_csv(path / "percentiles.csv")
    assert set(zip(percentiles["metric"], percentiles["statistic"], strict=True)) == {
        (metric, statistic) for metric in METRICS for statistic in ("p50", "p90", "p99", "mean")
    }
    assert percentiles.notna().all(axis=None)
    error = percentiles["sim_ns"] - percentiles["real_ns"]
    assert (error - percentiles["error_ns"]).abs().max() < 1
    assert len(pd.read_csv(path / "per_request.csv")) == NUM_PROMPTS
    for metric in METRICS:
        assert (path / "plots" / f"{metric}_cdf.png").stat().st_size > 0
    summary, page = ((path / name).read_text(encoding="utf-8") for name in ("summary.md", "report.html"))
    assert "median end-to-end latency" in summary
    assert "median end-to-end latency" in page
