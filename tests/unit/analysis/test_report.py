"""The report says what was measured, in one page that needs nothing else."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.analysis.assess import Assessment, assess
from gpu_simulate_test.analysis.drawing import COLOURS
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.analysis.report import comparison_table, headline, verdict_line, write_report
from gpu_simulate_test.analysis.samples import METRICS
from gpu_simulate_test.analysis.stage import compare_runs, find_pair
from gpu_simulate_test.analysis.wording import trust
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
    shown = set(re.findall(r'<td class="number[^>]*>([^<]+)</td>', page.replace("&#43;", "+")))
    assert {figure for row in cells for figure in row.split(" | ") if figure} <= shown


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


def test_the_page_needs_no_network_no_other_file_and_no_script(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http" not in page
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert "@import" not in page
    assert "url(" not in page


def test_each_metric_has_one_chart_and_each_axis_says_its_unit(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    charts = dict(re.findall(r'<figure class="card" id="([\w-]+)">(<svg.*?</svg>)', page))
    assert charts.keys() == {f"cdf-{metric}" for metric in METRICS} | {
        "error-e2e",
        "error-ttft",
        "error-position",
        "timeline-slowest",
    }
    units = re.compile(r">[^<]*(, ms|, %|, tokens|ms since arrival|output token, from 0)<")
    for name, chart in charts.items():
        wanted = 1 if name == "timeline-slowest" else 2  # what is named beside its bars needs no axis
        assert len(units.findall(chart)) == wanted, name
        assert "nan" not in chart.lower()


def test_real_and_simulated_are_told_apart_without_colours(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    chart = page.partition('id="cdf-e2e"')[2].partition("</svg>")[0]
    curves = {
        colour: dashes for colour, dashes in re.findall(r'stroke="(#\w+)" stroke-width="[\d.]+"( \S+ \S+)?/>', chart)
    }
    assert curves[COLOURS["real"]] == "" and "dasharray" in curves[COLOURS["sim"]]
    assert chart.count("<title>real P") == 3 == chart.count("<title>sim P")


def test_the_verdict_comes_first_in_plain_words(report: Path) -> None:
    sentence = "Do not rely on the simulation here: 9 of 15 latency figures are off by more than 5.0 %."
    page = (report / "report.html").read_text(encoding="utf-8")
    body = re.sub(r"<[^>]*>", " ", page.partition("<body>")[2]).split()
    assert " ".join(body).startswith(f"{sentence} The simulator predicts")
    first = (report / "summary.md").read_text(encoding="utf-8").split("\n\n")[1]
    assert first.startswith(f"**{sentence}** The simulator predicts")


@pytest.mark.parametrize(
    ("shift_ms", "other_ms", "meta", "sentence"),
    [
        (
            20,
            40,
            {},
            "Whether to rely on the simulation cannot be said: the real runs differ too much from each other.",
        ),
        (
            0.1,
            1,
            {},
            "The simulation can be relied on for such a load: 9 of 9 latency figures are within 5.0 % of the ",
        ),
        (
            90,
            1,
            {},
            "Do not rely on the simulation here: 9 of 9 latency figures are off by more than 5.0 % and by more ",
        ),
        (1, 1, {"workload_sha256": None}, "Nothing can be said about the simulation: the comparison fails a check"),
    ],
)
def test_each_verdict_has_its_plain_words(
    tmp_path: Path, shift_ms: float, other_ms: float, meta: dict[str, Any], sentence: str
) -> None:
    real = [time[1:] for time in REAL]  # of one token: TTFT, E2E and E2E / token, three percentiles each
    sim, other = ([[last + round(by * MS)] for [last] in real] for by in (shift_ms, other_ms))
    assert trust(assessed(tmp_path, real, sim, others=[other] * 2, **meta)).startswith(sentence)


def test_a_table_of_the_page_is_narrow_enough_for_a_phone(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    for row in re.findall(r"<tr.*?</tr>", page, flags=re.DOTALL):
        beside = [cell for cell in re.findall(r"<t[hd][^>]*>", row) if not re.search(r'class="[^"]*\bmore\b', cell)]
        assert len(beside) <= 4, "what is `more` goes below on a narrow screen"


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
    charts = dict(re.findall(r'id="waterfall-(e2e|ttft)">(<svg.*?</svg>)', page))
    assert charts.keys() == {"e2e", "ttft"}
    for metric, chart in charts.items():
        rows = table[table["metric"] == metric]
        said = re.findall(r">([+-]?[\d,.]+) ms(?:, [-\d.,]+ %)?<", chart)
        assert [float(one.replace(",", "")) for one in said] == pytest.approx(rows["mean_ns"] / MS, abs=0.006)
        assert chart.count("<rect x=") == len(rows), "a bar a part"


def test_large_samples_stay_a_small_page_that_says_what_it_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gaps = rng.integers(1, 10 * MS, (6000, 20))
    times = (np.arange(6000)[:, None] * 1000 * MS + np.cumsum(gaps, axis=1)).tolist()
    late = (np.array(times) + rng.integers(0, 9 * MS, (6000, 1))).tolist()
    late[17] = [time + 300 * MS for time in late[17]]
    real, sim = pair(tmp_path, times, late)
    written(real, sim, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert len(page) < 500_000
    chart = page.partition('id="error-e2e"')[2].partition("</figure>")[0]
    assert "2,000 of 6,000 requests drawn, those furthest off among them." in chart
    assert chart.count("h0") + chart.count("<circle") == 2000
    assert "<title>request 17 " in page.partition('id="error-ttft"')[2].partition("</figure>")[0]


def test_a_very_long_answer_stays_a_small_page(tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).integers(1, 10 * MS, 60_000)
    times = (20 * MS + np.cumsum(gaps)).tolist()
    real, sim = pair(tmp_path, [times], [[time + MS * (i == 40_001) for i, time in enumerate(times)]])
    written(real, sim, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert len(page) < 200_000
    errors = page.partition('id="error-position"')[2].partition("</figure>")[0]
    assert len(set(re.findall(r"[ML][\d.]+ ([\d.]+)(?=L|\")", errors))) == 2, "the one token that is late is drawn"


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
