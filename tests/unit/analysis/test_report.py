"""The report says what was measured, in one page that needs nothing else."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.analysis.assess import Assessment, assess
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.analysis.report import comparison_table, headline, verdict_line, write_report
from gpu_simulate_test.analysis.stage import compare_runs, find_pair
from gpu_simulate_test.config.schema import SloConfig
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.run_dir import RunDir
from tests.support.builders import MS, write_run
from tests.support.virtual_engine import VirtualClock, VirtualEngine, affine_cost
from tests.unit.analysis.test_attribution import BURST, LENGTHS, serve, slower, write_at_real_speed, write_predictions

# E2E is 100 ms in reality and 97 ms in the simulation, 40 times.
REAL = [[i * 1000 * MS + 20 * MS, i * 1000 * MS + 100 * MS] for i in range(40)]
SIM = [[i * 1000 * MS + 25 * MS, i * 1000 * MS + 97 * MS] for i in range(40)]
PARAMS = {
    "hardware": {"name": "a100", "dtype": "bfloat16"},
    "backend": {"name": "transformers"},
    "vidur": {"scheduler": {"name": "sarathi"}, "predictor": {"name": "iteration"}},
}


def pair(folder: Path, real: list[list[int]], sim: list[list[int]], **meta: Any) -> tuple[Path, Path]:
    return write_run(folder / "real_a", "real", real, **meta), write_run(folder / "vidur_b", "vidur", sim, **meta)


def assessed(
    folder: Path,
    real: list[list[int]],
    sim: list[list[int]],
    others: Sequence[list[list[int]]] = (),
    tolerance: float = 0.05,
    **meta: Any,
) -> Assessment:
    of_real, of_sim = pair(folder, real, sim, **meta)
    repeats = [write_run(folder / f"real_{i}", "real", times, **meta) for i, times in enumerate(others)]
    runs = [load_run(path, "real") for path in (of_real, *repeats)]
    return assess(runs, load_run(of_sim, "vidur"), tolerance=tolerance, allow_mismatch=True)


def written(
    real_dir: Path, sim_dir: Path, out: Path, *, allow_mismatch: bool = False, slo: SloConfig | None = None
) -> Assessment:
    """What compare-runs writes, but for its PNG files, which take longest."""
    real, sim = load_run(real_dir, "real"), load_run(sim_dir, "vidur")
    found = assess([real], sim, allow_mismatch=allow_mismatch, slo=slo)
    out.mkdir()
    write_report(found, real, sim, RunDir(out), [])
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    real, sim = pair(folder, REAL, SIM, model="Qwen/<b>Qwen3</b>", params=PARAMS)
    out = folder / "comparison"
    compare_runs(real, sim, RunDir(out), allow_mismatch=False)
    return out


def test_a_manager_reads_one_sentence(report: Path) -> None:
    sentence = (
        "The simulator predicts the median end-to-end latency 3.0 % too low (sim 97.0 ms, real 100.0 ms, 40 requests); "
        "that is within the tolerance of 5.0 %, and one real run has no floor to hold it against."
    )
    assert sentence in (report / "summary.md").read_text(encoding="utf-8")
    assert sentence in (report / "report.html").read_text(encoding="utf-8")


def test_the_sentence_says_high_and_says_nearly_right(tmp_path: Path) -> None:
    assert "3.1 % too high" in headline(assessed(tmp_path / "a", SIM, REAL))
    assert "to within 0.1 %" in headline(assessed(tmp_path / "b", REAL, REAL))


@pytest.mark.parametrize(
    ("other_ms", "tolerance", "ending"),
    [
        (10, 0.05, "; the real run differs from itself by 104.8 %, too much to judge the simulator by."),
        (1, 0.05, "; the real run differs from itself by 10.9 %, so the two cannot be told apart."),
        (0.1, 0.05, "; the real run differs from itself by 1.1 %, so the error is real, yet within the tolerance of 5"),
        (0.1, 0.01, "; the real run differs from itself by 1.1 %, so the error is real, and beyond the tolerance of 1"),
    ],
)
def test_the_sentence_holds_the_error_against_the_floor(
    tmp_path: Path, other_ms: float, tolerance: float, ending: str
) -> None:
    shift = round(other_ms * MS)
    other = [[first, last + shift] for first, last in REAL]
    assert ending in headline(assessed(tmp_path, REAL, SIM, others=[other], tolerance=tolerance))


def test_the_verdict_names_the_worst_figures(report: Path) -> None:
    summary = (report / "summary.md").read_text(encoding="utf-8")
    assert "Verdict: off (TTFT P50 +25.0 %, TTFT P90 +25.0 %, TTFT P99 +25.0 % and 6 more)." in summary
    assert "off (TTFT P50 &#43;25.0 %" in (report / "report.html").read_text(encoding="utf-8").replace("+", "&#43;")


def test_a_void_comparison_says_which_gate_made_it_void(tmp_path: Path) -> None:
    found = assessed(tmp_path, REAL, SIM, workload_sha256=None)
    assert verdict_line(found).startswith("void (workload not recorded, neither run names its workload")


def test_both_reports_name_what_was_compared_and_every_figure(report: Path) -> None:
    markdown = (report / "summary.md").read_text(encoding="utf-8")
    page = (report / "report.html").read_text(encoding="utf-8")
    for text in ("real_a", "vidur_b", "a100", "transformers", "sarathi", "iteration", "bfloat16"):
        assert f"| {text} |" in markdown
        assert f"<td>{text}</td>" in page
    cells = re.findall(r"\| (?:P\d\d|mean) \| (.*) \|  \| (?:within tolerance|off) \| 40 ", markdown)
    assert len(cells) == 5 * 4, "five metrics, four statistics each"
    for cell in {figure for row in cells for figure in row.split(" | ")}:
        assert f'<td class="number">{cell}</td>' in page.replace("&#43;", "+")


def test_settings_in_force_are_shown_rather_than_those_asked_for(tmp_path: Path) -> None:
    asked = {"max_num_seqs": 32, "max_num_batched_tokens": 512, "num_blocks": 9999, "block_size": 16}
    params = PARAMS | {"backend": asked}
    real = write_run(tmp_path / "r", "real", REAL, params=params, engine=asked | {"num_blocks": 2048})
    in_force = {"batch_cap": 32, "token_budget": 512, "num_blocks": 1024, "block_size": 16}
    sim = write_run(tmp_path / "v", "vidur", SIM, params=params, settings=in_force)
    written(real, sim, tmp_path / "out")
    summary = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert "| KV cache | 2048 blocks of 16 tokens | 1024 blocks of 16 tokens |" in summary
    assert "| Batch limits | 32 requests, 512 tokens | 32 requests, 512 tokens |" in summary


def test_the_page_needs_no_network_and_no_other_file(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"<script[^>]*\ssrc=", page)
    assert not re.search(r'(src|href)="(?!#|data:)', markup)
    assert "@import" not in markup
    assert "url(" not in markup
    assert page.count("plotly.js v") == 1, "plotly.js is there, once"
    assert len(re.findall(r'<div id="(?:cdf|scatter|error)-', page)) == 5 + 2 + 2
    assert len(re.findall(r'<div id="(?:qq|timeline)-', page)) == 5 + 1


def test_metadata_cannot_inject_markup(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "Qwen/&lt;b&gt;Qwen3" in page
    assert "<b>Qwen3" not in page


def test_every_caveat_is_in_both_reports(tmp_path: Path) -> None:
    real, sim = pair(tmp_path, REAL, [*SIM[:-1], SIM[-1][:1]], workload_sha256=None)
    comparison = written(real, sim, tmp_path / "out", allow_mismatch=True).comparison
    assert len(comparison.notes) >= 3
    for name in ("summary.md", "report.html"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert all(note in text for note in comparison.notes)


def test_the_tables_survive_a_round_trip(tmp_path: Path) -> None:
    real, sim = pair(tmp_path, REAL, SIM)
    found = written(real, sim, tmp_path / "out")
    comparison = found.comparison
    for name, frame in (
        ("percentiles", comparison.percentiles),
        ("per_request", comparison.per_request),
        ("gates", found.gates),
    ):
        read = pd.read_csv(tmp_path / "out" / f"{name}.csv", float_precision="round_trip")
        pd.testing.assert_frame_equal(read, frame, check_dtype=False, check_exact=True)


def test_an_undefined_figure_is_an_empty_field(tmp_path: Path) -> None:
    real, sim = pair(tmp_path, [[20 * MS]], [[10 * MS]])
    compare_runs(real, sim, RunDir(tmp_path / "out"), allow_mismatch=False)
    lines = (tmp_path / "out" / "percentiles.csv").read_text(encoding="utf-8").splitlines()
    assert '"tpot","p50",,,,,0,0,,,1,,,,,"not judged"' in lines
    assert "nan" not in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8").lower()
    assert (tmp_path / "out" / "plots" / "tpot_cdf.png").is_file()


def test_there_is_one_readable_plot_a_metric_and_the_summary_shows_it(report: Path) -> None:
    summary = (report / "summary.md").read_text(encoding="utf-8")
    for metric in ("ttft", "tbt", "tpot", "e2e", "e2e_per_token"):
        data = (report / "plots" / f"{metric}_cdf.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20], "big") >= 800, "wide enough to read"
        assert f"(plots/{metric}_cdf.png)" in summary


def test_the_same_runs_give_the_same_bytes(report: Path, tmp_path: Path) -> None:
    compare_runs(report.parent / "real_a", report.parent / "vidur_b", RunDir(tmp_path / "again"))
    files = sorted(path.relative_to(report) for path in report.rglob("*.*"))
    assert len(files) == 4 + 3 + 5, "tables, pages and trace, plots"
    assert all((report / path).read_bytes() == (tmp_path / "again" / path).read_bytes() for path in files)


def test_the_terminal_table_is_fixed_width_in_ms(tmp_path: Path) -> None:
    other = [[first, last + MS] for first, last in REAL]
    lines = comparison_table(assessed(tmp_path, REAL, SIM, others=[other]).comparison).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) == 1 + 5 * 4
    assert lines[1].split() == ["TTFT", "P50", "20.00", "25.00", "+5.00", "+25.0", "%", "0.0", "%", "40", "off"]
    assert {line.find("%") for line in lines[1:]} == {lines[1].find("%")}, "columns line up"
    assert {line.rfind("%") for line in lines[1:]} == {lines[1].rfind("%")}


def test_the_attribution_is_a_table_and_two_waterfalls_or_a_word_on_what_is_missing(tmp_path: Path) -> None:
    engine = VirtualEngine(VirtualClock(), slower)
    real = serve(tmp_path / "real", "real", engine, BURST, LENGTHS)
    sim = serve(tmp_path / "sim", "vidur", VirtualEngine(VirtualClock()), BURST, LENGTHS)
    written(real.path, sim.path, tmp_path / "without")
    for name in ("summary.md", "report.html"):
        text = (tmp_path / "without" / name).read_text(encoding="utf-8")
        assert f"run vidur-sim with real_run_dir={real.path}" in text
    write_predictions(sim.path, real, affine_cost)
    write_at_real_speed(sim.path, engine, VirtualEngine(VirtualClock()), BURST, LENGTHS)
    written(real.path, sim.path, tmp_path / "with")
    table = pd.read_csv(tmp_path / "with" / "attribution.csv")
    assert table.columns.tolist() == ["metric", "part", "mean_ns", "share"]
    assert "| scheduling |" in (tmp_path / "with" / "summary.md").read_text(encoding="utf-8")
    page = (tmp_path / "with" / "report.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<div id="waterfall-(?:e2e|ttft)"', page)) == 2
    assert page.count("plotly.js v") == 1


def test_large_samples_stay_a_page_that_opens(tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).integers(1, 10 * MS, 60_000)
    times = (20 * MS + np.cumsum(gaps)).tolist()
    real, sim = pair(tmp_path, [times], [times])
    compare_runs(real, sim, RunDir(tmp_path / "out"), allow_mismatch=False)
    assert (tmp_path / "out" / "report.html").stat().st_size < 8_000_000


class TestNewestPair:
    """The runs that compare-runs takes when none is named."""

    @staticmethod
    def add(root: Path, name: str, ended: int, workload: str, **meta: Any) -> Path:
        kind = "real" if name.startswith("real") else "vidur"
        ended_at = f"2026-01-0{ended}T00:00:00+00:00"
        return write_run(
            root / f"{kind}_runs" / name, kind, REAL[:1], ended_at=ended_at, workload_sha256=workload * 64, **meta
        )

    def test_it_is_of_one_workload_and_newest(self, tmp_path: Path) -> None:
        self.add(tmp_path, "real_old", 1, "a")
        newest_real = self.add(tmp_path, "real_new", 2, "a")
        newest_sim = self.add(tmp_path, "vidur_a", 3, "a")
        self.add(tmp_path, "real_b", 2, "b")
        self.add(tmp_path, "vidur_b", 2, "b")
        self.add(tmp_path, "real_alone", 9, "c")
        self.add(tmp_path, "real_repeat", 8, "a", repeat_of="real_new")
        assert find_pair(tmp_path, None, None) == (newest_real, newest_sim)

    def test_a_workload_can_be_asked_for(self, tmp_path: Path) -> None:
        self.add(tmp_path, "real_a", 3, "a")
        self.add(tmp_path, "vidur_a", 3, "a")
        real, sim = self.add(tmp_path, "real_b", 1, "b"), self.add(tmp_path, "vidur_b", 1, "b")
        assert find_pair(tmp_path, None, None, "b" * 64) == (real, sim)

    def test_an_unfinished_run_is_not_a_run(self, tmp_path: Path) -> None:
        real, sim = self.add(tmp_path, "real_a", 1, "a"), self.add(tmp_path, "vidur_a", 1, "a")
        (self.add(tmp_path, "real_broken", 2, "a") / "run_meta.json").unlink()
        assert find_pair(tmp_path, None, None) == (real, sim)

    def test_what_is_missing_is_named_with_the_stage_that_makes_it(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match=r"no finished real run: .*; run real-bench first"):
            find_pair(tmp_path, None, None)
        self.add(tmp_path, "real_a", 1, "a")
        with pytest.raises(ArtifactError, match=r"no finished vidur run: .*; run vidur-sim first"):
            find_pair(tmp_path, None, None)
        self.add(tmp_path, "vidur_b", 1, "b")
        with pytest.raises(ArtifactError, match=r"no simulated run of the same workload: .*real_a; run vidur-sim"):
            find_pair(tmp_path, None, None)
        with pytest.raises(ArtifactError, match="no finished real run of workload bbbbbbbbbbbb"):
            find_pair(tmp_path, None, None, "b" * 64)
