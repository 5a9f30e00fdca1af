"""The closed-loop points: half of them is never looked at, constants are of one in ten."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.fidelity.silicon import Point, collection, points, simulate
from benchmarks.fidelity.silicon_fit import Fitted, donors, fit
from benchmarks.fidelity.silicon_page import Outcome, change, far, kept, kinds, signed
from gpu_simulate_test.latency.calibration import Constants

ROW = {
    "backend": "vllm",
    "mode": "agg",
    "backend_version": "0.18.0",
    "silicon_data_source": "source_file=2026-04-06.csv",
    "model_path": "openai/gpt-oss-120b",
    "precision": "fp4",
    "system": "h100_sxm",
    "tp_size": 2.0,
    "moe_tp_size": 2.0,
    "moe_ep_size": 1.0,
    "isl": 1024,
    "osl": 512,
    "batch_size": 8.0,
}
NOBODY = Constants()


def md5(name: str) -> str:
    return hashlib.md5(name.encode()).hexdigest()


def point_of(name: str, **changes: object) -> Point:
    point = Point(name, md5(name), "Qwen/Qwen3-32B", "bf16", "h100_sxm", "", 1, 1, 100, 50, 4, 10.0, 1.0, True)
    return replace(point, **changes)


def collected(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    told = [
        {"silicon_ttft_ms": 5.0 + number, "silicon_tpot_ms": 1.0} | ROW | dict(row) for number, row in enumerate(rows)
    ]
    pd.DataFrame(told).to_csv(folder / "sample.csv", index=False)
    return folder / "sample.csv"


def test_the_half_that_is_kept_for_a_blind_check_is_never_read(tmp_path: Path) -> None:
    names = [f"row{number}" for number in range(64)]
    found, left_out = points(collected(tmp_path, [{"id": name} for name in names]))
    assert {point.id for point in found} == {name for name in names if int(md5(name)[-1], 16) % 2 == 0}
    assert 0 < len(found) < 64
    assert not +left_out
    (tensor, expert), first = {(point.tensor, point.expert) for point in found}.pop(), found[0]
    assert (tensor, expert, first.prompt, first.output, first.concurrency, first.described) == (
        2,
        1,
        1024,
        512,
        8,
        True,
    )


def test_what_is_there_twice_or_cannot_be_simulated_is_left_out_and_counted(tmp_path: Path) -> None:
    even = [f"row{number}" for number in range(64) if int(md5(f"row{number}")[-1], 16) % 2 == 0]
    same = {"silicon_ttft_ms": 5.0, "silicon_tpot_ms": 1.0}
    rows = [
        {"id": even[0]} | same,
        {"id": even[1]} | same,
        {"id": even[2], "moe_tp_size": 4.0},
        {"id": even[3], "backend": "sglang"},
        {"id": even[4], "model_path": "somebody/else"},
    ]
    found, left_out = points(collected(tmp_path, rows))
    assert [point.id for point in found] == [even[0]]
    assert sorted(left_out.values()) == [1, 1]


def test_one_in_ten_of_each_group_and_none_of_a_tiny_one() -> None:
    many = [point_of(f"a{number}") for number in range(41)]
    few = [point_of(f"b{number}", system="h200_sxm") for number in range(4)]
    chosen = donors([*few, *many])
    assert len(chosen) == 5
    assert {point.system for point in chosen} == {"h100_sxm"}
    assert chosen == donors([*reversed(many), *few])


def serve(point: Point, constants: Constants) -> tuple[float, float]:
    """An engine whose times are known."""
    step_ms = constants.kernel_factor * point.tensor + constants.step_ns / 1e6
    step_ms += constants.sequence_ns / 1e6 * point.concurrency
    return constants.front_end_ns / 1e6 + 3 * step_ms, step_ms


def test_a_fit_finds_what_is_true_of_all_and_of_each_group() -> None:
    truth = Constants(step_ns=2e6, sequence_ns=5e4, front_end_ns=2e7)
    factors = {"h100_sxm": 0.9, "h200_sxm": 1.1}
    chosen = []
    for number in range(24):
        system = ("h100_sxm", "h200_sxm")[number % 2]
        point = point_of(f"{number}", system=system, tensor=1 + number % 5, concurrency=4 + 7 * (number % 4))
        ttft, tpot = serve(point, replace(truth, kernel_factor=factors[system]))
        chosen.append(replace(point, ttft_ms=ttft, tpot_ms=tpot))
    found = fit(chosen, serve)
    errors = np.log([np.divide(serve(point, found.of(point)), (point.ttft_ms, point.tpot_ms)) for point in chosen])
    assert np.abs(errors).max() < 0.05, "what holds constants towards nothing is weak"
    assert found.host.front_end_ns == pytest.approx(2e7, rel=0.1)
    assert [found.of(point).kernel_factor for point in chosen[:2]] == pytest.approx([0.9, 1.1], abs=0.05)
    assert found.of(point_of("x", model="of no group")).kernel_factor == 1.0
    assert found.donors == {point.id for point in chosen}


FITTED = Fitted(NOBODY, {("Qwen3-32B", "bf16", "h100_sxm"): 1.1}, frozenset({"d"}))


def test_errors_are_summed_up_by_where_a_point_belongs_and_what_is_far_off_is_said() -> None:
    near = Outcome(point_of("a", concurrency=4), (0.1, -0.02), (0.05, 0.01))
    donor = Outcome(point_of("b", concurrency=64, described=False), (-0.6, 0.3), None)
    failed = Outcome(point_of("c", concurrency=4), "no such engine", None)
    told = kept([near, donor, failed], {"for a reason": 3, "no such engine": 1}, FITTED)
    of = dict(kinds(told.points))
    assert signed(of["**all**"], "plain") == (2, ["16.0", "16.0", "+14.0"], ["35.0", "35.0", "-25.0"])
    assert change(of["**all**"]) == (1, ["2.0\xa0→\xa01.0"] * 2, ["10.0\xa0→\xa05.0"] * 2)
    assert signed(of["33 to 64 at a time"], "plain") == (1, ["30.0", "30.0", "+30.0"], ["60.0", "60.0", "-60.0"])
    assert change(of["33 to 64 at a time"]) == (0, ["-"] * 2, ["-"] * 2)
    assert signed(of["1 to 4 at a time"], "plain")[0] == 1
    assert len(of["Qwen3-32B, BF16, H100"]) == len(of["on H100"]) == 3
    assert told.left_out == [("for a reason", 3), ("no such engine", 2)]
    assert (told.donors, told.learned.rpartition(": ")[2]) == (1, "Qwen3-32B BF16 on H100 1.10")
    assert [one.partition(":")[0] for one in far([near, donor, failed])] == [
        "TPOT, 1 point, +30.0 %",
        "TTFT, 1 point, -60.0 %",
    ]


def test_a_request_alone_waits_for_its_own_prompt_only() -> None:
    pytest.importorskip("aiconfigurator_core", reason="the operator database is not installed")
    assert collection() is not None
    alone = point_of("a", prompt=1024, output=128, concurrency=1, tensor=8)
    ttft, tpot = simulate(alone)
    later = simulate(alone, Constants(front_end_ns=10e6))
    assert later == pytest.approx((ttft + 10, tpot), rel=1e-6)
    crowded = simulate(replace(alone, concurrency=16))
    assert crowded[0] > 2 * ttft
    assert crowded[1] > tpot
