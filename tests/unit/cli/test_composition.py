"""A sweep runs all its jobs but those that cannot be composed."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from gpu_simulate_test.cli.arguments import parse_arguments
from gpu_simulate_test.cli.composition import Part, _parts, planned
from gpu_simulate_test.config.schema import WorkloadSpecConfig

AXES = {"a": ["a=1", "a=2", "a=3"], "b": ["b=1"], "c": ["c=1", "c=2"], "d": ["d=1", "d=2"]}
JOBS = list(product(*AXES.values()))


@given(st.sets(st.sampled_from(JOBS)))
def test_every_job_that_can_be_composed_runs_once(bad: set[tuple[str, ...]]) -> None:
    run = [job for part in _parts(AXES, {job: ValueError() for job in bad}) for job in product(*part.values())]
    assert sorted(run) == sorted(set(JOBS) - bad)


def test_a_bad_choice_goes_and_the_rest_stays_one_sweep() -> None:
    overrides = [
        "model=qwen3_tiny,junk",
        "workload=glob(*)",
        "output.root=a (b,c",
        "~backend",
        "workload.seed=range(2)",
    ]
    arguments = parse_arguments(["-m", *overrides], WorkloadSpecConfig)
    plan = planned("workload_spec", arguments, check=False)
    good = [number for job, number in plan.numbers.items() if "model=qwen3_tiny" in job]
    assert plan.parts == [Part(["model=qwen3_tiny", *arguments.overrides[1:]], tuple(good))]
    assert {"model/junk" in str(error) for error in plan.failures.values()} == {True}
    assert {plan.numbers[job] for job in plan.failures} == set(plan.numbers.values()) - set(good)
    assert plan.first is not None
    assert plan.first.output.root == "a (b"


def test_a_good_sweep_is_left_as_it_is() -> None:
    arguments = parse_arguments(["-m", "workload.seed=1,2", "workload.seed=3"], WorkloadSpecConfig)
    plan = planned("workload_spec", arguments, check=False)
    assert (plan.parts, plan.failures) == ([Part(arguments.overrides, (0,))], {})
