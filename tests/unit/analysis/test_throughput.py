"""Throughput is compared beside latencies; of a closed loop, when requests were sent is not."""

from pathlib import Path

import pytest

from gpu_simulate_test.analysis.assess import assess
from gpu_simulate_test.analysis.load_metrics import Run, load_run
from gpu_simulate_test.errors import ArtifactError
from tests.support.builders import MS, write_run


def run(folder: Path, kind: str, slower: int, **meta: bool) -> Run:
    """Two requests, the second sent when the first has made its three tokens."""
    first = [one * slower * MS for one in (50, 60, 80)]
    second = [first[-1] + one for one in first]
    write_run(folder, kind, [first, second], arrival_ns=[0, first[-1]], **meta)
    return load_run(folder, kind)


def test_throughput_is_what_completed_in_the_time_it_took(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / name, kind, slower, closed_loop=True)
        for name, kind, slower in (("a", "real", 1), ("b", "real", 2), ("c", "vidur", 1))
    ]
    table = assess(runs[:2], runs[2]).throughput.set_index("statistic")
    assert table.loc["requests_per_s", "sim"] == pytest.approx(2 / 0.160)
    assert table.loc["requests_per_s", "real"] == pytest.approx((2 / 0.160 + 2 / 0.320) / 2)
    assert table.loc["output_tokens_per_s", "sim"] == pytest.approx(6 / 0.160)
    assert (table["floor"] > 0).all()


def test_each_run_of_a_closed_loop_sends_at_times_of_its_own(tmp_path: Path) -> None:
    real, sim = (run(tmp_path / kind, kind, slower, closed_loop=True) for kind, slower in (("real", 1), ("vidur", 2)))
    comparison = assess([real], sim).comparison
    assert any(note.startswith("Closed loop: ") for note in comparison.notes)
    assert comparison.per_request["error_e2e_ns"].tolist() == [80 * MS, 80 * MS]


def test_of_an_open_loop_other_times_are_another_workload(tmp_path: Path) -> None:
    real, sim = (run(tmp_path / kind, kind, slower) for kind, slower in (("real", 1), ("vidur", 2)))
    with pytest.raises(ArtifactError, match="arrival schedules are up to"):
        assess([real], sim)
