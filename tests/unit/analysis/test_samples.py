"""A simulation with noise is compared by its requests and the quantiles of its times between tokens."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.analysis.compare import Comparison, compare
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.tables import TBT_QUANTILES, TOKEN_METRICS, write_table
from tests.support.builders import MS, write_run


def write_pair(folder: Path, quantiles_only: bool, **of_real: object) -> tuple[Path, Path]:
    """Eight requests of five tokens, three simulations with noise."""
    rng = np.random.default_rng(0)
    times = 1000 * MS * np.arange(8)[:, None] + rng.integers(8 * MS, 12 * MS, (5, 8, 5)).cumsum(axis=2)
    real = write_run(folder / "real", "real", times[0].tolist(), **of_real)  # type: ignore[arg-type]
    sim = write_run(folder / "sim", "vidur", times[1].tolist())
    for number, of_sample in enumerate(times[2:]):
        sample = write_run(sim / "samples" / str(number), "vidur", of_sample.tolist())
        if quantiles_only:
            (sample / TOKEN_METRICS.filename).unlink()
            level = np.linspace(0, 1, 1001).round(3)
            gaps = np.quantile(np.diff(of_sample, axis=1), level)
            write_table(sample, TBT_QUANTILES, pd.DataFrame({"level": level, "token_latency_ns": gaps}))
    return real, sim


def compared(folder: Path, quantiles_only: bool) -> Comparison:
    real, sim = write_pair(folder, quantiles_only)
    return compare(load_run(real, "real"), load_run(sim, "vidur"))


def test_quantiles_say_what_the_tokens_would(tmp_path: Path) -> None:
    whole, short = compared(tmp_path / "a", False), compared(tmp_path / "b", True)
    figures = [name for name in whole.percentiles if not name.startswith("ci_")]
    pd.testing.assert_frame_equal(short.percentiles[figures], whole.percentiles[figures], rtol=1e-12)
    assert short.percentiles.notna().equals(whole.percentiles.notna()), "and intervals, here of the run without noise"
    ends = [np.quantile(one.sim_values["tbt"], [0, 0.5, 1]) for one in (whole, short)]
    assert ends[1] == pytest.approx(ends[0], rel=0.01), "the pooled distribution is drawn from them"


def test_where_requests_are_left_out_quantiles_of_all_of_them_do_not_count(tmp_path: Path) -> None:
    real, sim = write_pair(tmp_path, True, failed=[3])
    comparison = compare(load_run(real, "real"), load_run(sim, "vidur"))
    assert comparison.percentiles["sim_low_ns"].isna().all()
    assert any(note.startswith("Left out: 3 simulations with noise") for note in comparison.notes)


def test_quantiles_at_other_levels_are_refused(tmp_path: Path) -> None:
    _, sim = write_pair(tmp_path, True)
    table = pd.DataFrame({"level": [0.0, 1.0], "token_latency_ns": [1.0, 2.0]})
    write_table(sim / "samples" / "1", TBT_QUANTILES, table)
    with pytest.raises(
        ArtifactError, match=r"level is not 0, 0.001, ... 1: .*1.tbt_quantiles.csv; run vidur-sim again"
    ):
        load_run(sim, "vidur")
