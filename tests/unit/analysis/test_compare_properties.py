"""What holds for any pair of runs."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.analysis.compare import Comparison, compare
from gpu_simulate_test.analysis.load_metrics import load_run
from tests.support.builders import MS, write_run

# A request is its TTFT and the gaps between its tokens, in ns; arrivals are 1 s apart.
Request = tuple[int, list[int]]
REQUESTS = st.lists(
    st.tuples(st.integers(0, 3000 * MS), st.lists(st.integers(0, 500 * MS), max_size=6)), min_size=1, max_size=6
)
SHIFT = 10 * MS
few = settings(max_examples=int(os.environ.get("GST_EXAMPLES", "10")))  # each writes and reads two runs


def compared(
    real: list[Request],
    sim: list[Request],
    *,
    asked: list[int] | None = None,
    failed: Sequence[int] = (),
    unstreamed: Sequence[int] = (),
    allow_mismatch: bool = False,
) -> Comparison:
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for run_type, requests, ids in (("real", real, ()), ("vidur", sim, failed)):
            times = [np.cumsum([1000 * MS * i + ttft, *gaps]).tolist() for i, (ttft, gaps) in enumerate(requests)]
            path = write_run(
                Path(folder) / run_type, run_type, times, num_decode_tokens=asked, failed=ids, unstreamed=unstreamed
            )
            runs.append(load_run(path, run_type))
    return compare(*runs, allow_mismatch=allow_mismatch)


@few
@given(REQUESTS)
def test_a_run_compared_with_itself_is_zero_everywhere(requests: list[Request]) -> None:
    comparison = compared(requests, requests)
    table = comparison.percentiles
    known = table["n_real"] > 0
    assert (table.loc[known, "error_ns"] == 0).all()
    assert (table.loc[known & (table["real_ns"] != 0), "relative_error"] == 0).all()
    errors = comparison.per_request.filter(like="error_")
    assert ((errors == 0) | errors.isna()).all(axis=None)
    assert (errors[["error_ttft_ns", "error_e2e_ns"]] == 0).all(axis=None)


@few
@given(REQUESTS, st.data())
def test_a_run_compared_with_itself_is_zero_wherever_it_was_measured(
    requests: list[Request], data: st.DataObject
) -> None:
    unstreamed = data.draw(st.sets(st.integers(0, len(requests) - 1), min_size=1))
    comparison = compared(requests, requests, unstreamed=sorted(unstreamed))
    table = comparison.percentiles
    known = table["n_real"] > 0
    assert (table.loc[known, "error_ns"] == 0).all()
    assert set(table.loc[~known, "metric"]) == comparison.unjudged.keys()
    frame = comparison.per_request
    assert frame.index[frame["error_ttft_ns"].isna()].tolist() == sorted(unstreamed)
    assert (frame["error_ttft_ns"].dropna() == 0).all()
    assert (frame["error_e2e_ns"] == 0).all()


@few
@given(REQUESTS)
def test_shifting_every_simulated_token_shifts_ttft_and_e2e_by_just_that(requests: list[Request]) -> None:
    comparison = compared(requests, [(ttft + SHIFT, gaps) for ttft, gaps in requests])
    frame = comparison.per_request
    assert (frame["error_ttft_ns"] == SHIFT).all()
    assert (frame["error_e2e_ns"] == SHIFT).all()
    error = comparison.percentiles.set_index(["metric", "statistic"])["error_ns"]
    # Percentiles are interpolated in floating point: 0.001 ns is their rounding.
    assert (error[["ttft", "e2e"]] - SHIFT).abs().max() < 1e-3
    assert (error["tbt"].dropna() == 0).all()
    assert (error["tpot"].dropna() == 0).all()


@few
@given(REQUESTS, st.data())
def test_an_early_stop_measures_only_the_tokens_that_both_made(requests: list[Request], data: st.DataObject) -> None:
    keep = [data.draw(st.integers(0, len(gaps))) for _, gaps in requests]
    stopped = [(ttft, gaps[:n]) for (ttft, gaps), n in zip(requests, keep, strict=True)]
    asked = [len(gaps) + 1 for _, gaps in requests]
    comparison = compared(stopped, requests, asked=asked, allow_mismatch=True)
    # The longer run agrees with the shorter one as far as that goes, so nothing may differ.
    frame = comparison.per_request
    assert frame["num_tokens_compared"].tolist() == [n + 1 for n in keep]
    assert (frame["error_e2e_ns"] == 0).all()
    assert np.array_equal(np.sort(comparison.real_values["tbt"]), np.sort(comparison.sim_values["tbt"]))
    cut = sum(len(gaps) > n for (_, gaps), n in zip(requests, keep, strict=True))
    assert any(note.startswith(f"Output tokens made differ in {cut} of") for note in comparison.notes) == (cut > 0)


@few
@given(REQUESTS, REQUESTS, st.data())
def test_nothing_is_lost(real: list[Request], sim: list[Request], data: st.DataObject) -> None:
    shared = min(len(real), len(sim))
    failed = data.draw(st.sets(st.integers(0, len(sim) - 1)).filter(lambda ids: not set(range(shared)) <= ids))
    comparison = compared(real, sim, failed=sorted(failed), allow_mismatch=True)
    pairs = [i for i in range(shared) if i not in failed]
    assert comparison.per_request["request_id"].tolist() == pairs
    tokens = [1 + min(len(real[i][1]), len(sim[i][1])) for i in pairs]
    for values in (comparison.real_values, comparison.sim_values):
        assert len(values["ttft"]) == len(values["e2e"]) == len(values["e2e_per_token"]) == len(pairs)
        assert len(values["tbt"]) == sum(tokens) - len(pairs)
        assert len(values["tpot"]) == sum(n > 1 for n in tokens)
    # The oracle: plain Python over the requests as they were made.
    assert sorted(comparison.real_values["tbt"]) == sorted(
        g for i, n in zip(pairs, tokens, strict=True) for g in real[i][1][: n - 1]
    )
    assert comparison.sim_values["e2e"].tolist() == sorted(
        sim[i][0] + sum(sim[i][1][: n - 1]) for i, n in zip(pairs, tokens, strict=True)
    )
