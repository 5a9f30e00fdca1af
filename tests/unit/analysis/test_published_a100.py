"""A published pair, Qwen3-0.6B on an A100, gives its published TTFT and its true inter-token latencies."""

import os
from pathlib import Path

import pytest

from gpu_simulate_test.analysis.compare import Comparison, compare
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.errors import ArtifactError

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("GST_SHARED_DATA", ROOT.parent / "shared" / "data")) / "a100-qwen3-0.6b-spaced-arrivals"

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="published A100 data is absent: set GST_SHARED_DATA to the folder that holds it"
)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    real, sim = load_run(DATA / "real_run", "real"), load_run(DATA / "vidur_run", "vidur")
    return compare(real, sim, allow_mismatch=True)


@pytest.mark.parametrize(
    ("metric", "real_ns", "sim_ns"), [("ttft", 17_283_962.5, 1_967_610.0), ("tbt", 13_615_572.0, 1_824_867.5)]
)
def test_medians_are_exact(comparison: Comparison, metric: str, real_ns: float, sim_ns: float) -> None:
    rows = comparison.percentiles
    median = rows[(rows["metric"] == metric) & (rows["statistic"] == "p50")]
    assert median[["real_ns", "sim_ns"]].to_numpy().tolist() == [[real_ns, sim_ns]]


def test_the_zero_at_the_first_token_is_no_latency(comparison: Comparison) -> None:
    assert len(comparison.real_values["tbt"]) == 8 * 63
    assert comparison.real_values["tbt"].min() > 0


def test_without_a_workload_hash_it_is_refused_unless_allowed() -> None:
    real, sim = load_run(DATA / "real_run", "real"), load_run(DATA / "vidur_run", "vidur")
    with pytest.raises(ArtifactError, match="unknown workload"):
        compare(real, sim)
