"""The page of a sweep: one file that needs nothing else, every point a link, whatever became of the jobs."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpu_simulate_test.studies.jobs import Outcome
from gpu_simulate_test.studies.table import write_sweep
from tests.unit.studies.outcomes import bad, ok, sweep_folder

RATE, SEQS = "workload.arrival.rate_per_s", "limits.max_num_seqs"
SLO = ("slo.ttft_ms=500", "slo.tbt_ms=40")


class Seen(HTMLParser):
    """Addresses, tags and text of a page; it fails where a tag is not closed."""

    _VOID = ("meta", "link", "path", "use", "rect")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data.replace("\u00a0", " ")


def page_of(root: Path, outcomes: list[Outcome], extra: str = "") -> tuple[str, Seen]:
    text = write_sweep(sweep_folder(root, outcomes), extra).read_text(encoding="utf-8")
    return text, Seen(text)


def grid(rates: tuple[float, ...] = (1, 2, 4), seqs: tuple[object, ...] = (32, 64)) -> list[Outcome]:
    """Jobs at several rates; those at the highest miss the objectives."""
    return [
        ok(
            index,
            f"{SEQS}={one}",
            f"{RATE}={rate}",
            *SLO,
            run_dir=f"vidur_runs/vidur_{index}",
            slo_attainment=1.0 if rate < max(rates) else 0.5,
            output_tokens_per_s_per_gpu=100 * rate + place,
            interactivity_tokens_per_s=50 / rate,
            ttft_p99_ms=40 * rate,
        )
        for index, (place, one, rate) in enumerate((p, s, r) for p, s in enumerate(seqs) for r in rates)
    ]


def test_the_page_says_on_top_how_many_failed_and_which_is_best(tmp_path: Path) -> None:
    _, seen = page_of(tmp_path, [*grid(), bad(6, f"{SEQS}=0", f"{RATE}=1", *SLO)])
    assert (
        "7 jobs, 1 of them failed; 4 meet the objectives (TTFT at most 500 ms and mean TBT at most 40 ms for 99 % of "
        "the requests); of these B 2 (max_num_seqs=64, rate_per_s=2) gives most, 201 output tokens/s per GPU."
    ) in seen.text


def test_every_point_and_row_leads_to_its_run(tmp_path: Path) -> None:
    (tmp_path / "vidur_runs" / "vidur_0").mkdir(parents=True)
    (tmp_path / "vidur_runs" / "vidur_0" / "report.html").touch()
    _, seen = page_of(tmp_path, grid())
    for index in range(6):
        address = f"../../vidur_runs/vidur_{index}/" + ("report.html" if index == 0 else "")
        assert seen.links.count(address) >= 7  # in each of six charts, and in the table
    assert not any("job:" in link for link in seen.links)


def test_the_page_needs_no_network_and_no_other_file(tmp_path: Path) -> None:
    text, seen = page_of(tmp_path, grid())
    assert all(link.startswith(("../../", "#", "data:", "sweep.csv")) for link in seen.links)
    assert not re.search(r"@import|url\((?!#)", text)


def test_latencies_have_axes_with_units_and_the_objectives(tmp_path: Path) -> None:
    _, seen = page_of(tmp_path, grid())
    for said in ("Time to first token, P99", "Time per output token, P99", "requests sent each second"):
        assert said in seen.text
    assert "SLO 500 ms" in seen.text
    assert "output tokens/s per GPU" in seen.text
    assert "tokens/s per user" in seen.text
    assert "Hollow" in seen.text


def test_a_figure_with_an_objective_is_shown_at_its_99th_percentile(tmp_path: Path) -> None:
    jobs = [ok(job, f"{RATE}={job + 1}", "slo.tbt_ms=50", slo_attainment=1 - job / 2) for job in range(2)]
    _, seen = page_of(tmp_path, jobs)
    assert "Time per output token, P99" in seen.text
    assert "Time per output token, P50" not in seen.text


def test_concurrency_is_along_the_charts_of_a_closed_loop(tmp_path: Path) -> None:
    jobs = [ok(job, f"workload.arrival.concurrency={4**job}", e2e_p50_ms=10.0 * job + 1) for job in range(4)]
    _, seen = page_of(tmp_path, jobs)
    assert "concurrent requests" in seen.text


def test_a_sweep_without_a_load_has_a_row_a_job(tmp_path: Path) -> None:
    _, seen = page_of(tmp_path, [ok(job, f"limits.tensor_parallel={2**job}") for job in range(3)])
    assert "C tensor_parallel=4" in seen.text
    assert "requests sent each second" not in seen.text


def test_many_jobs_without_a_load_are_along_the_number_that_takes_most_values(tmp_path: Path) -> None:
    jobs = [ok(job, f"{SEQS}={job // 2}", f"limits.tensor_parallel={1 + job % 2}") for job in range(60)]
    text, seen = page_of(tmp_path, jobs)
    assert "max_num_seqs" in re.findall(r"<text [^>]*>([^<]*)</text>", text)
    assert "B tensor_parallel=2" in " ".join(seen.text.split())


def test_what_no_job_knows_is_neither_drawn_nor_told(tmp_path: Path) -> None:
    unknown = {f"{metric}_{part}_ms": float("nan") for metric in ("ttft", "tpot") for part in ("p50", "p99")}
    none = float("nan")
    jobs = [
        ok(job, f"{RATE}={job + 1}", slo_attainment=none, cost_per_million_output_tokens=none, **unknown)
        for job in range(2)
    ]
    _, seen = page_of(tmp_path, jobs)
    assert "End to end, P50" in seen.text
    for absent in ("Time to first token", "TTFT", "objectives", "Cost"):
        assert absent not in seen.text


def test_failed_jobs_are_listed_with_their_error_and_overrides(tmp_path: Path) -> None:
    _, seen = page_of(tmp_path, [*grid(), bad(6, f"{SEQS}=0", error="out of range: it must be from 1")])
    assert "out of range: it must be from 1" in seen.text
    assert f"experiment=e {SEQS}=0" in seen.text
    summary = (tmp_path / "sweeps" / "sweep_1" / "summary.md").read_text(encoding="utf-8")
    assert f"| 6 | error | 3 | out of range: it must be from 1 | experiment=e {SEQS}=0 |" in summary


@pytest.mark.parametrize(
    "outcomes",
    [
        [],
        [ok(0)],
        [bad(0)],
        [bad(0, "a=1"), bad(1, "a=2")],
        [ok(0, f"{RATE}=1"), bad(1, f"{RATE}=2")],
        [Outcome(job=0, stage="compare_runs", overrides=[], status="ok", exit_code=0, run_dir="comparisons/a")],
        [ok(0, f"{RATE}=null"), ok(1, f"{RATE}=2")],
        [ok(0, "a=1", ttft_p99_ms=0.0, tpot_p50_ms=0.0), ok(1, "a=2", ttft_p99_ms=0.0, tpot_p50_ms=0.0)],
        [ok(0, "a=1", ttft_p99_ms=1e-9), ok(1, "a=2", ttft_p99_ms=1e9)],
    ],
    ids=["none", "one", "one failed", "all failed", "one of a line", "no figures", "a null", "zeros", "far apart"],
)
def test_any_sweep_has_a_page(tmp_path: Path, outcomes: list[Outcome]) -> None:
    _, seen = page_of(tmp_path, outcomes)
    assert ("Failed jobs" in seen.text) == any(one.status != "ok" for one in outcomes)
    assert "nan" not in re.sub(r"[a-z]+nan|nan[a-z]+", "", seen.text.lower())


def test_one_of_the_failed_is_told_apart_from_all(tmp_path: Path) -> None:
    _, seen = page_of(tmp_path / "a", [bad(0, "a=1"), bad(1, "a=2")])
    assert "2 jobs, and all of them failed." in seen.text
    _, seen = page_of(tmp_path / "b", [])
    assert "No job has ended yet." in seen.text


def test_text_of_overrides_and_errors_stays_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>$x^{2$ & | `q`"
    outcomes = [
        *grid(seqs=(f"'{evil}'", 64)),
        ok(6, f"model.path='{evil}'", run_dir='vidur_runs/a"><script>'),
        bad(7, f"{SEQS}='{evil}'", error=evil),
    ]
    _, seen = page_of(tmp_path, outcomes)
    assert seen.tags.count("script") == 1  # the one that sorts
    assert evil in seen.text
    summary = (tmp_path / "sweeps" / "sweep_1" / "summary.md").read_text(encoding="utf-8")
    cells = [line for line in summary.splitlines() if line.startswith("| 7 |")]
    assert cells and all("\\|" in line for line in cells)


def test_names_of_rows_stay_text(tmp_path: Path) -> None:
    _, seen = page_of(tmp_path, [ok(0, "model.path='<b>$a_b$'"), ok(1, "model.path='$$'")])
    assert "A path=<b>$a_b$" in seen.text
    assert "b" not in [tag for tag in seen.tags if tag == "b"][2:]  # the two codes of the legend


def test_a_section_that_is_passed_is_in_the_page_as_it_is(tmp_path: Path) -> None:
    text, _ = page_of(tmp_path, grid(), "<h2>Capacity</h2><p>7.5 requests/s</p>")
    assert "<h2>Capacity</h2><p>7.5 requests/s</p>" in text
    assert text.index("Capacity") < text.index("<h2>Charts</h2>")


def test_twenty_four_settings_are_told_apart_in_a_page_of_moderate_size(tmp_path: Path) -> None:
    text, _ = page_of(tmp_path, grid(rates=(1, 2, 3, 4, 5, 6, 7, 8), seqs=tuple(range(24))))
    assert len(text.encode()) < 2_000_000
    legend = re.findall(r"<li><svg.*?</svg>\s*<b>(\w+)</b>", text, flags=re.DOTALL)
    assert legend == [chr(ord("A") + index) for index in range(24)]


def test_the_front_names_its_points(tmp_path: Path) -> None:
    _, seen = page_of(tmp_path, grid())
    assert "Pareto front" in seen.text
    for name in ("B 1 (max_num_seqs=64, rate_per_s=1)", "B 4 (max_num_seqs=64, rate_per_s=4)"):
        assert name in seen.text
    assert "A 1 (max_num_seqs=32, rate_per_s=1)" not in seen.text
