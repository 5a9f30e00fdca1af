"""What was not measured is unknown: a run whose answers were not streamed is judged on what it has, and says so."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpu_simulate_test.analysis.assess import Assessment, assess
from gpu_simulate_test.analysis.attribution import Attribution
from gpu_simulate_test.analysis.load_metrics import load_run
from gpu_simulate_test.analysis.report import comparison_table, verdict_line
from gpu_simulate_test.analysis.stage import compare_runs
from gpu_simulate_test.analysis.trace import phases
from gpu_simulate_test.cli import real_bench, vidur_profile, vidur_sim, workload_spec
from gpu_simulate_test.config.schema import SloConfig
from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.run_dir import RunDir
from tests.support.builders import MS, edit_csv, write_run
from tests.support.virtual_engine import VirtualClock, VirtualEngine, affine_cost
from tests.unit.analysis.test_attribution import BURST, LENGTHS, serve, slower, write_at_real_speed, write_predictions
from tests.unit.analysis.test_load_metrics import set_cell
from tests.unit.analysis.test_report import written
from tests.unit.profiles.test_recorded import overrides, stage, write_profile

N = 20
# Request i: TTFT 20 + i, E2E 100 + i ms, three tokens; the simulation is 2 ms late in all of them.
REAL = [[(1000 * i + at + i) * MS for at in (20, 60, 100)] for i in range(N)]
SIM = [[time + 2 * MS for time in times] for times in REAL]
ALL, SOME = range(N), (0, 7, 19)
FIRST, TOKENS = "first tokens, as when answers are not streamed", "the times of tokens"


def assessed(folder: Path, real: Sequence[int], sim: Sequence[int] = (), slo: SloConfig | None = None) -> Assessment:
    """Assess a pair, of which the answers of some requests were not streamed."""
    runs = [
        load_run(write_run(folder / kind, kind, times, unstreamed=ids), kind)
        for kind, times, ids in (("real", REAL, real), ("vidur", SIM, sim))
    ]
    return assess(runs[:1], runs[1], slo=slo)


def words(found: Assessment) -> dict[str, set[str]]:
    return found.comparison.percentiles.groupby("metric")["verdict"].agg(set).to_dict()


@pytest.mark.parametrize(
    ("real", "sim", "who"),
    [
        (ALL, (), "the real run did not record"),
        ((), ALL, "the simulated run did not record"),
        (ALL, ALL, "neither run"),
    ],
)
def test_a_run_that_was_not_streamed_is_judged_on_its_end_to_end_latency(
    tmp_path: Path, real: Sequence[int], sim: Sequence[int], who: str
) -> None:
    found = assessed(tmp_path, real, sim)
    unjudged = {name: verdicts for name, verdicts in words(found).items() if "not judged" in verdicts}
    assert unjudged == {name: {"not judged"} for name in ("ttft", "tbt", "tpot")}
    assert found.comparison.unjudged.keys() == unjudged.keys()
    assert all(reason.startswith(who) for reason in found.comparison.unjudged.values())
    e2e = found.comparison.percentiles.set_index(["metric", "statistic"]).loc["e2e"]
    assert e2e["error_ns"].to_numpy() == pytest.approx(2 * MS)
    assert found.comparison.per_request.filter(regex="ttft|tpot").isna().all(axis=None)


def test_every_page_and_the_terminal_say_what_is_not_judged_and_why(tmp_path: Path) -> None:
    real, sim = write_run(tmp_path / "r", "real", REAL, unstreamed=ALL), write_run(tmp_path / "v", "vidur", SIM)
    found = compare_runs(real, sim, RunDir(tmp_path / "out"), slo=SloConfig(ttft_ms=30, e2e_ms=110))
    assert verdict_line(found).startswith("within tolerance (E2E")
    assert verdict_line(found).endswith("; TTFT, TBT, TPOT not judged")
    assert comparison_table(found.comparison).splitlines()[-2:] == [
        f"TTFT, TPOT not judged: the real run did not record {FIRST}",
        f"TBT not judged: the real run did not record {TOKENS}",
    ]
    assert max(map(len, comparison_table(found.comparison).splitlines())) <= 100
    page, summary = ((tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("report.html", "summary.md"))
    for text in (verdict_line(found), FIRST, TOKENS, f"first token of {N} of {N} requests"):
        assert text in page.replace("&#43;", "+")
        assert text in summary
    charts = set(re.findall(r'<figure class="card" id="([\w-]+)"', page))
    assert charts == {"cdf-e2e", "cdf-e2e_per_token", "error-e2e", "timeline-slowest"}, "no chart of what is not known"
    assert not re.search(r"\bnan\b", page + summary, flags=re.IGNORECASE)
    for path in (tmp_path / "out").glob("*.csv"):
        assert "nan" not in path.read_text(encoding="utf-8").lower(), "an empty field"
    trace = json.loads((tmp_path / "out" / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    of_first = [
        (event["name"], event["pid"], event["dur"]) for event in trace if event.get("tid") == 1 and "dur" in event
    ]
    assert of_first == [("prefill and decode", 1, 100e3), ("prefill", 2, 22e3), ("decode", 2, 80e3)]


def test_where_some_answers_were_not_streamed_both_sides_are_of_the_others(tmp_path: Path) -> None:
    found = assessed(tmp_path, SOME).comparison
    table = found.percentiles.set_index(["metric", "statistic"])
    known = [i for i in range(N) if i not in SOME]
    for name in ("ttft", "tpot"):
        assert table.loc[(name, "p50"), ["n_real", "n_sim"]].tolist() == [N - 3, N - 3]
        assert len(found.real_values[name]) == len(found.sim_values[name]) == N - 3
    assert table.loc[("ttft", "mean"), "real_ns"] == pytest.approx(np.mean([20 * MS + i * MS for i in known]))
    assert table.loc[("ttft", "p99"), "error_ns"] == pytest.approx(2 * MS)
    assert table.loc[("e2e", "p50"), ["n_real", "n_sim"]].tolist() == [N, N]
    blank = found.per_request.set_index("request_id")[["real_ttft_ns", "sim_ttft_ns", "error_tpot_ns"]].isna()
    assert blank.all(axis=1)[blank.any(axis=1)].index.tolist() == list(SOME)
    assert any("first token of 3 of 20 requests" in note for note in found.notes)
    assert found.unjudged.keys() == {"tbt"}


def test_runs_that_have_it_of_different_requests_share_none(tmp_path: Path) -> None:
    found = assessed(tmp_path, range(10), range(10, N)).comparison
    assert found.unjudged["ttft"] == "no request has it in every run"
    assert len(found.real_values["ttft"]) == len(found.sim_values["ttft"]) == 0


@pytest.mark.parametrize("unstreamed", [ALL, SOME])
def test_an_objective_on_what_was_not_recorded_is_neither_met_nor_missed(
    tmp_path: Path, unstreamed: Sequence[int]
) -> None:
    levels = assessed(tmp_path, unstreamed, slo=SloConfig(ttft_ms=30, tbt_ms=50, e2e_ms=110)).slo
    figures = levels.set_index(["objective", "statistic"])
    for name in ("ttft", "tbt", "all"):
        assert figures.loc[name, ["real", "error", "relative_error"]].isna().all(axis=None)
        assert figures.loc[name, "sim"].notna().all()
    assert figures.loc[("e2e", "attainment"), ["real", "sim"]].tolist() == [11 / N, 9 / N]


def test_a_request_of_one_token_has_no_time_between_tokens_streamed_or_not(tmp_path: Path) -> None:
    times = [[i * 1000 * MS + 20 * MS] for i in range(5)]
    real = load_run(write_run(tmp_path / "r", "real", times, unstreamed=[0, 1]), "real")
    sim = load_run(write_run(tmp_path / "v", "vidur", times), "vidur")
    found = assess([real], sim, slo=SloConfig(tbt_ms=1))
    assert found.comparison.unjudged == dict.fromkeys(("tbt", "tpot"), "every request made one token")
    assert found.slo["real"].tolist()[::2] == [1, 1]


def test_a_difference_is_explained_as_far_as_it_is_known(tmp_path: Path) -> None:
    engine = VirtualEngine(VirtualClock(), slower)
    real = serve(tmp_path / "real", "real", engine, BURST, LENGTHS)
    sim = serve(tmp_path / "sim", "vidur", VirtualEngine(VirtualClock()), BURST, LENGTHS)
    write_predictions(sim.path, real, affine_cost)
    write_at_real_speed(sim.path, engine, VirtualEngine(VirtualClock()), BURST, LENGTHS)
    whole = assess([real], sim).attribution
    edit_csv(real.path / "token_metrics.csv", lambda frame: frame.iloc[:0])
    parts = {}
    for name, ids in (("some", [1, 4]), ("all", list(range(len(LENGTHS))))):
        edit_csv(
            real.path / "request_metrics.csv",
            lambda frame, ids=ids: frame.assign(  # type: ignore[misc]
                **{name: frame[name].mask(frame.index.isin(ids), "") for name in ("first_token_time_ns", "ttft_ns")}
            ),
        )
        found = written(real.path, sim.path, tmp_path / name).attribution
        assert isinstance(found, Attribution)
        parts[name] = found.per_request
    assert isinstance(whole, Attribution)
    kept = whole.per_request["ttft"].drop(index=[1, 4]).reset_index(drop=True)
    pd.testing.assert_frame_equal(parts["some"]["ttft"], kept)
    assert parts["all"].keys() == {"e2e"}
    pd.testing.assert_frame_equal(parts["all"]["e2e"], whole.per_request["e2e"])
    assert len(re.findall(r'id="waterfall-', (tmp_path / "all" / "report.html").read_text(encoding="utf-8"))) == 1


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("ttft_ns", 20 * MS, "ttft_ns is not first_token_time_ns - arrival_time_ns"),
        ("completion_time_ns", "", "an ok request without completion_time_ns"),
        ("completion_time_ns", 6999 * MS, "completion_time_ns is before arrival_time_ns"),
    ],
)
def test_what_is_there_still_has_to_agree(tmp_path: Path, column: str, value: object, what: str) -> None:
    path = write_run(tmp_path / "r", "real", REAL, unstreamed=SOME)
    edit_csv(path / "request_metrics.csv", set_cell(7, column, value))
    with pytest.raises(ArtifactError, match=f"{what}: .*: request 7; run real-bench again"):
        load_run(path, "real")


def test_a_request_may_lack_its_first_iteration_as_well(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r", "real", REAL, unstreamed=SOME)
    edit_csv(path / "request_metrics.csv", set_cell(7, "first_scheduled_time_ns", ""))
    spans = [phases(request) for request in load_run(path, "real").requests.iloc[[6, 7]].to_dict("records")]
    assert [[name for name, _, _ in one] for one in spans] == [
        ["queue", "prefill", "decode"],
        ["queue and prefill and decode"],
    ]


def test_a_recorded_run_without_first_tokens_goes_all_the_way(tmp_path: Path) -> None:
    rows = [(0.0, 30, 4, 50.0, ""), (0.25, 10, 1, 20.0, ""), (0.5, 20, 3, 60.0, ""), (0.75, 20, 3, "", "refused")]
    names = ["at", "asked", "made", "took", "why"]
    source = tmp_path / "own.csv"
    pd.DataFrame(rows, columns=names).to_csv(source, index=False)
    columns = "{arrival_time_s:at,num_prefill_tokens:asked,num_decode_tokens:made,e2e_ms:took,error_msg:why}"
    common = overrides(tmp_path, source, f"workload.trace_columns={columns}")
    stage(workload_spec, *common)
    real = stage(real_bench, *common)
    requests = pd.read_csv(real / "request_metrics.csv", dtype=str, keep_default_na=False)
    assert requests["status"].tolist() == ["ok", "ok", "ok", "error"]
    assert requests["first_token_time_ns"].tolist() == requests["ttft_ns"].tolist() == [""] * 4
    assert requests["completion_time_ns"].tolist() == ["50000000", "270000000", "560000000", ""]
    assert "TTFT not recorded: of 3 requests" in (real / "summary.md").read_text(encoding="utf-8")
    stage(vidur_profile, *common, f"profile.folder={write_profile(tmp_path / 'profile')}")
    sim = stage(vidur_sim, *common, f"real_run_dir={real}")
    found = written(real, sim, tmp_path / "out")
    assert found.comparison.unjudged.keys() == {"ttft", "tbt", "tpot"}
    assert len(found.comparison.real_values["e2e"]) == 3
