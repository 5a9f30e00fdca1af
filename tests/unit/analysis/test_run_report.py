"""The page of one simulated run: small, alone, and saying what the tables say."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.analysis.run_figures import run_figures
from gpu_simulate_test.analysis.run_report import PAGE, write_run_report
from gpu_simulate_test.config.schema import SloConfig
from gpu_simulate_test.io.run_dir import RunDir
from gpu_simulate_test.io.tables import ITERATION_METRICS, TBT_QUANTILES, write_table
from tests.support.builders import MS, write_run

LIMITS = {
    "max_num_seqs": 8,
    "max_num_batched_tokens": 64,
    "block_size": 16,
    "num_blocks": 10,
    "dtype": "bfloat16",
    "tensor_parallel": 2,
}
META: dict[str, Any] = {
    "run_id": "vidur_ab",
    "model": "some/<b>model</b>",
    "params": {
        "hardware": {"name": "h100", "device": "cuda"},
        "workload": {"arrival": {"kind": "poisson", "rate_per_s": 2.0}},
        "vidur": {"samples": 10},
    },
    "settings": {"scheduler": "vllm_v1", "limits": LIMITS, "router": "round_robin", "num_blocks_estimated": False},
    "predictor": "iteration",
    "loop": {"name": "core", "checked": 0, "difference": None},
    "workload_sha256": "5a" * 32,
}
NO_SLO = SloConfig()


def tokens(count: int, later_ms: float = 0) -> list[list[int]]:
    """Requests 500 ms apart: first token after 20 ms, and 10 ms more for each further; request 3 takes longest."""
    return [
        [round((500 * i + 20 + later_ms + (30 if i == 3 else 10) * j) * MS) for j in range(4)] for i in range(count)
    ]


def simulation(folder: Path, count: int = 120, samples: int = 0, outside: int = 0) -> Path:
    """A run directory without its metadata file, one iteration a token."""

    def write(path: Path, times: list[list[int]]) -> None:
        write_run(path, "vidur", times, arrival_ns=[500 * MS * i for i in range(count)])
        gaps = np.concatenate([np.diff(one) for one in times])
        level = np.linspace(0, 1, 1001).round(3)
        quantiles = pd.DataFrame({"level": level, "token_latency_ns": np.quantile(gaps, level)})
        write_table(path, TBT_QUANTILES, quantiles)

    write(folder, tokens(count))
    for number in range(samples):
        write(folder / "samples" / str(number), tokens(count, number))
    rows = []
    for i, times in enumerate(tokens(count)):
        begins = [500 * MS * i, *times[:-1]]
        rows += [
            (begin, end, 16 * (j == 0), int(j == 0), int(j > 0), 0, (15 + j) * (j > 0), 0)
            for j, (begin, end) in enumerate(zip(begins, times, strict=True))
        ]
    names = [name for name in ITERATION_METRICS.required if name != "iteration_id"]
    frame = pd.DataFrame(rows, columns=names)
    frame.insert(0, "iteration_id", range(len(frame)))
    frame["in_profile"] = np.arange(len(frame)) >= outside
    write_table(folder, ITERATION_METRICS, frame)
    (folder / "run_meta.json").unlink()
    return folder


def page(folder: Path, slo: SloConfig = NO_SLO, price: float | None = None, **said: Any) -> str:
    write_run_report(RunDir(folder), META | said, slo, price)
    return (folder / PAGE).read_text(encoding="utf-8")


def text(markup: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", markup))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(simulation(tmp_path_factory.mktemp("report") / "vidur_ab"))


def test_the_page_is_small_and_needs_nothing_else(plain: str) -> None:
    assert len(plain) < 100_000
    assert "<script" not in plain and "http" not in plain and "src=" not in plain
    assert plain.count("<svg") == 6


def test_it_is_made_without_a_plotting_library() -> None:
    heavy = {"matplotlib", "seaborn", "scipy", "vidur", "torch"}
    code = f"import sys, gpu_simulate_test.analysis.run_report; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_first_sentence_says_what_comes_of_it(plain: str) -> None:
    sentence = (
        "some/&lt;b&gt;model&lt;/b&gt; on 2 x h100, simulated: of 120 requests at 2.00 a second, the median takes 50 "
        "ms (P99 50 ms) and has its first token after 20 ms; 8.06 output tokens a second."
    )
    assert sentence in plain


def test_a_name_is_text_and_not_markup(plain: str) -> None:
    assert "<b>model" not in plain


def test_its_figures_are_those_of_a_table_of_many_runs(tmp_path: Path) -> None:
    folder, slo = simulation(tmp_path / "v", samples=3), SloConfig(ttft_ms=21, e2e_ms=52)
    said = text(page(folder, slo, 2.0))
    (folder / "run_meta.json").write_text("{}")
    found = run_figures(load_run(folder, "vidur"), slo, 2.0, 2)
    assert f"P50 {found['e2e_p50_ms']:.2f} {found['e2e_p50_ms_low']:.2f} to {found['e2e_p50_ms_high']:.2f}" in said
    assert f"All of them {100 * found['slo_attainment']:.1f} %" in said
    assert f"{100 * found['slo_attainment']:.1f} % of the requests meet the objectives" in said
    assert f"Cost of a million output tokens {found['cost_per_million_output_tokens']:.4g} " in said
    assert "for each of 2 GPUs" in said


def test_ranges_and_objectives_are_not_spoken_of_where_there_are_none(plain: str) -> None:
    for words in ("95 %", "objectives", "Cost"):
        assert words not in text(plain)


def test_the_slowest_request_comes_first_with_what_it_waited_for(plain: str) -> None:
    table = plain.partition("The slowest requests")[2].partition("</table>")[0]
    first = [cell.strip() for cell in re.findall(r"<t[hd][^>]*>([^<]*)</t", table.partition("<tbody>")[2])][:9]
    assert first == ["3", "110.00", "0.00", "20.00", "30.00", "16", "4", "1.50", "0"]
    assert table.count('<th scope="row"') == 10


def test_the_most_there_was_of_load_batch_and_cache_is_said(plain: str) -> None:
    said = text(plain)
    assert "Most requests in the system at once 1 " in said
    assert "Most requests in the iterations under way 1 " in said
    # The last iteration holds 16 + 3 tokens of 160 in the cache.
    assert "Most of the KV cache in use 11.9 %" in said


def test_what_was_simulated_is_said(plain: str) -> None:
    said = text(plain)
    for row in (
        "Hardware 2 x h100, 2 GPUs share a layer",
        "Batch limits 8 requests, 64 tokens",
        "KV cache 10 blocks of 16 tokens",
        "Requests 120, on average 16 prompt and 4 output tokens",
        "Arrivals Poisson, 2.0 requests a second",
        "Scheduler vllm_v1",
    ):
        assert row in said


def test_every_doubt_is_told(tmp_path: Path) -> None:
    folder = simulation(tmp_path / "v", count=40, outside=100)
    said = text(
        page(
            folder,
            settings=META["settings"] | {"num_blocks_estimated": True},
            profile_sources={"prompts": {"measured": 0.9, "estimated": 0.1}},
            profile_mismatch=[{"what": "engine version", "profile": "1", "settings": "2"}],
            loop={"name": "vidur", "checked": 0, "difference": "iteration 7"},
        )
    )
    assert "8 doubts below" in said
    for words in (
        "63.6 % of the engine's time lies outside what was profiled",
        "another engine version: measured with 1, simulated with 2",
        "prompts 90% measured, 10% estimated",
        "The host's own work, such as scheduling, sampling and HTTP, is not in them",
        "The number of KV blocks is an estimate",
        "Our core differs from Vidur's loop, which was used: iteration 7",
        "No ranges: the profile has no record",
        "With 40 requests, P99 rests on the slowest one or two.",
    ):
        assert words in said.replace("&#39;", "'"), words


def test_a_closed_loop_says_what_an_arrival_and_its_rate_are(tmp_path: Path) -> None:
    params = META["params"] | {"workload": {"arrival": {"kind": "closed_loop", "concurrency": 4}}}
    said = text(page(simulation(tmp_path / "v"), params=params, closed_loop=True)).replace("&#39;", "'")
    assert "Arrivals closed loop, 4 requests at a time" in said
    assert "a request's arrival is when it was sent, and the rate is what was completed" in said
