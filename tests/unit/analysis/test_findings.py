"""What is found about two runs is one finding: refused, graded and shown alike."""

from pathlib import Path

import pytest

from gpu_simulate_test.analysis.assess import assess
from gpu_simulate_test.analysis.findings import Finding, find, same_requests
from gpu_simulate_test.analysis.gates import NAMES
from gpu_simulate_test.analysis.identity import compared
from gpu_simulate_test.analysis.load_metrics import Run, load_run
from tests.support.builders import MS, calibration_on, write_run

CONTRACT = Path(__file__).parents[3] / "docs/reference/artifacts/comparison.md"


def pair(folder: Path, real: dict[str, object], sim: dict[str, object]) -> tuple[Run, Run]:
    of_real, of_sim = (
        load_run(write_run(folder / kind, kind, [[5 * MS, 9 * MS]], **meta), kind)
        for kind, meta in (("real", real), ("vidur", sim))
    )
    return of_real, of_sim


def test_a_gate_and_the_first_table_say_the_same_of_each_run(tmp_path: Path) -> None:
    real, sim = pair(
        tmp_path,
        {"model": "m", "engine": {"num_blocks": 64, "block_size": 16}},
        {"model": "m", "settings": {"num_blocks": 32, "block_size": 16}},
    )
    gates = assess([real], sim).gates.set_index("gate")
    assert gates.loc["model", ["status", "value"]].tolist() == ["passed", "m"]
    assert gates.loc["KV blocks", ["status", "value"]].tolist() == ["flagged", "64, 32"]
    rows = {row["label"]: (row["real"], row["sim"]) for row in compared(real, sim, find(real, sim))}
    assert rows["Model"] == ("m", "m")
    assert rows["KV cache"] == ("64 blocks of 16 tokens", "32 blocks of 16 tokens")


def test_a_limit_asked_for_is_shown_but_only_one_in_force_is_held_against_the_other(tmp_path: Path) -> None:
    asked = {"params": {"backend": {"num_blocks": 64}}}
    limits = {one.name: one for one in find(*pair(tmp_path, asked, asked))}
    assert limits["KV blocks"].real == limits["KV blocks"].sim == "64"
    assert (limits["KV blocks"].holds, limits["KV blocks"].value) == (None, "not recorded")


@pytest.mark.parametrize(
    ("real", "sim", "holds"),
    [
        ({}, {}, None),
        ({"tensor_parallel": 1}, {"tensor_parallel": 1, "pipeline_parallel": 1, "data_parallel": 1}, None),
        ({"tensor_parallel": 4}, {"tensor_parallel": 4, "data_parallel": 1}, True),
        ({"tensor_parallel": 4}, {"tensor_parallel": 2, "pipeline_parallel": 2}, False),
        ({}, {"data_parallel": 2}, False),
    ],
)
def test_a_model_on_other_gpus_is_told(
    tmp_path: Path, real: dict[str, int], sim: dict[str, int], holds: bool | None
) -> None:
    of_real, of_sim = pair(tmp_path, {"engine": {"limits": real}}, {"settings": {"limits": sim}})
    gates = assess([of_real], of_sim).gates.set_index("gate")["status"]
    assert gates.get("GPUs") == {None: None, True: "passed", False: "flagged"}[holds]


@pytest.mark.parametrize(
    ("finding", "value"),
    [
        (Finding("x", True, "a", "a"), "a"),
        (Finding("x", False, "a", "b"), "a, b"),
        (Finding("x", True, sim="b"), "b"),
        (Finding("x", None, "a", "a"), "not recorded"),
    ],
)
def test_a_value_is_what_the_runs_say(finding: Finding, value: str) -> None:
    assert finding.value == value


def test_runs_without_a_common_request_have_nothing_that_differs(tmp_path: Path) -> None:
    real = load_run(write_run(tmp_path / "r", "real", [[5 * MS]], request_ids=[1]), "real")
    sim = load_run(write_run(tmp_path / "v", "vidur", [[5 * MS]], request_ids=[2]), "vidur")
    pairing = same_requests(real, sim)
    assert [one.name for one in pairing.findings if not one.holds] == ["requests"]
    assert len(pairing.common) == len(pairing.paired) == 0


@pytest.mark.parametrize(("found", "status"), [(1000, "passed"), (960, "passed"), (940, "flagged"), (0, "flagged")])
def test_a_cache_in_which_prompts_find_less_than_in_the_real_one_is_flagged(
    tmp_path: Path, found: int, status: str
) -> None:
    real, sim = pair(tmp_path, {}, {})
    assert "cached tokens" not in assess([real], sim).gates["gate"].tolist(), "not recorded"
    real.requests["num_cached_tokens"], sim.requests["num_cached_tokens"] = 1000, found
    gates = assess([real], sim).gates.set_index("gate")
    assert gates.loc["cached tokens", "status"] == status


def test_the_contract_lists_every_gate_in_its_order(tmp_path: Path) -> None:
    after = (
        CONTRACT.read_text(encoding="utf-8")
        .split("## gates.csv")[1]
        .split("| gate | flagged | void |")[1]
        .split("\n#")[0]
    )
    rows = [line.split("|")[1].strip() for line in after.splitlines() if line.startswith("| ")]
    listed = [name.strip() for row in rows for name in row.split(",") if not row.startswith("---")]
    assert listed == list(NAMES)
    of_profile = {"profile_mismatch": [], "profile_sources": {"decoding": {"measured": 0.5, "interpolated": 0.0}}}
    switches = {"enable_prefix_caching": True, "async_scheduling": False}
    of_sim = {"loop": {"name": "core", "checked": 1, "difference": None}, **of_profile}
    of_sim["calibration"] = calibration_on()
    of_sim["settings"] = {"limits": switches | {"data_parallel": 2}}
    real, sim = pair(tmp_path, {"arrivals_recorded": False, "engine": {"limits": switches}}, of_sim)
    for run in (real, sim):
        run.requests["num_cached_tokens"] = 8
    assert assess([real], sim).gates["gate"].tolist() == list(NAMES), "and a comparison can have all of them"
