"""Which points of a sweep are best, and where names have room."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpu_simulate_test.io.files import write_json
from gpu_simulate_test.studies.axes import spread
from gpu_simulate_test.studies.jobs import Outcome
from gpu_simulate_test.studies.points import NAMED, Sweep, codes_of, pareto_front, sweep_of
from gpu_simulate_test.studies.table import sweep_table
from tests.unit.studies.outcomes import bad, ok

coordinate = st.integers(0, 6).map(float) | st.just(float("nan"))
points = st.lists(st.tuples(coordinate, coordinate), max_size=12)


def looked_at(outcomes: list[Outcome], root: Path = Path("/nowhere")) -> Sweep:
    return sweep_of(outcomes, root, sweep_table(outcomes, root))


def surpasses(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] >= other[1]


@given(points)
def test_no_point_surpasses_one_of_the_front_and_every_other_is_surpassed(places: list[tuple[float, float]]) -> None:
    x, y = np.array(places, dtype=np.float64).reshape(-1, 2).T
    front = pareto_front(x, y)
    known = [place for place in places if not np.isnan(place).any()]
    assert len(set(front)) == len(front)
    for index in front:
        assert not any(surpasses(place, places[index]) for place in known)
    on_it = {places[index] for index in front}
    assert all(place in on_it or any(surpasses(other, place) for other in on_it) for place in known)
    assert list(x[front]) == sorted(x[front])


@given(st.lists(st.floats(-1, 2), max_size=30), st.floats(0, 0.2))
def test_names_keep_their_order_and_their_distance(wanted: list[float], gap: float) -> None:
    places = spread(np.array(wanted), gap)
    assert len(places) == len(wanted)
    if wanted:
        assert places.min() >= -1e-9
        assert places.max() <= 1 + 1e-9
    least = min(gap, 1 / max(1, len(wanted) - 1))
    assert (np.diff(np.sort(places)) >= least - 1e-9).all()
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(places[order]) >= -1e-9).all()


def test_names_with_room_stay_where_they_belong() -> None:
    np.testing.assert_allclose(spread(np.array([0.9, 0.1, 0.5]), 0.1), [0.9, 0.1, 0.5])


def test_jobs_that_differ_in_the_rate_alone_are_one_setting() -> None:
    sweep = looked_at(
        [
            ok(job, f"limits.max_num_seqs={seqs}", f"workload.arrival.rate_per_s={rate}")
            for job, (seqs, rate) in enumerate([(32, 4), (32, 1), (64, 4), (64, 1)])
        ]
    )
    assert sweep.load == "workload.arrival.rate_per_s"
    assert [(group.code, group.label, group.jobs) for group in sweep.groups] == [
        ("A", "max_num_seqs=32", (1, 0)),
        ("B", "max_num_seqs=64", (3, 2)),
    ]
    assert len({group.looks for group in sweep.groups}) == 2


def test_the_best_job_is_the_one_of_most_throughput_that_meets_its_objectives() -> None:
    jobs = [
        ok(0, "a=1", "slo.ttft_ms=5", slo_attainment=1.0, output_tokens_per_s_per_gpu=10.0),
        ok(1, "a=2", "slo.ttft_ms=5", slo_attainment=0.99, output_tokens_per_s_per_gpu=20.0),
        ok(2, "a=3", "slo.ttft_ms=5", slo_attainment=0.98, output_tokens_per_s_per_gpu=30.0),
        bad(3, "a=4", "slo.ttft_ms=5"),
    ]
    sweep = looked_at(jobs)
    assert sweep.best == 1
    np.testing.assert_array_equal(sweep.meets, [1, 1, 0, np.nan])
    wanted = [one.model_copy(update={"overrides": [*one.overrides, "slo.attainment=0.995"]}) for one in jobs]
    assert looked_at(wanted).best == 0


def test_without_objectives_the_best_job_is_the_one_of_most_throughput() -> None:
    none = float("nan")
    jobs = [ok(job, f"a={job}", slo_attainment=none, output_tokens_per_s_per_gpu=job) for job in range(3)]
    assert looked_at(jobs).best == 2
    assert looked_at([bad(0)]).best is None


def test_objectives_that_were_not_typed_are_those_of_the_run(tmp_path: Path) -> None:
    run = tmp_path / "vidur_runs" / "vidur_a"
    run.mkdir(parents=True)
    write_json(run / "run_meta.json", {"params": {"slo": {"ttft_ms": 200.0, "tbt_ms": None, "e2e_ms": None}}})
    assert looked_at([ok(0), ok(1, "slo.ttft_ms=100")], tmp_path).slo == [{"ttft_ms": 200.0}, {"ttft_ms": 100.0}]


def test_of_many_settings_those_of_the_front_have_names() -> None:
    many = range(3 * NAMED)
    jobs = [
        ok(job, f"a={job}", "workload.arrival.rate_per_s=1", output_tokens_per_s_per_gpu=float(job == 7) + 1)
        for job in many
    ] + [
        ok(job + len(many), f"a={job}", "workload.arrival.rate_per_s=2", output_tokens_per_s_per_gpu=1) for job in many
    ]
    sweep = looked_at(jobs)
    assert [(group.code, group.label) for group in sweep.groups if group.code] == [("A", "a=7")]
    assert sum(group.looks is None for group in sweep.groups) == len(many) - 1


def test_codes_go_on_after_z() -> None:
    codes = codes_of(60)
    assert codes[:2] + codes[25:28] == ["A", "B", "Z", "AA", "AB"]
    assert len(set(codes)) == 60
