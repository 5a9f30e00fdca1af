"""What is drawn over the time of a run adds up to the run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.analysis.line_chart import Line, line_chart
from gpu_simulate_test.analysis.over_time import rate, spans

EDGES = np.linspace(0, 120, 7)
SPANS = st.lists(st.tuples(st.integers(-30, 150), st.integers(0, 60), st.integers(0, 5)), min_size=1, max_size=20)


@settings(max_examples=300, deadline=None)
@given(SPANS)
def test_a_level_is_the_spans_under_way_at_every_moment(drawn: list[tuple[int, int, int]]) -> None:
    begin, long, weight = (np.array(column) for column in zip(*drawn, strict=True))
    level = spans(EDGES, begin, begin + long, weight)
    # Every moment between two whole numbers is alike.
    moments = np.arange(120) + 0.5
    under_way = ((begin <= moments[:, None]) & (moments[:, None] < begin + long)) @ weight
    by_part = under_way.reshape(6, 20)
    assert level.mean == pytest.approx(by_part.mean(axis=1))
    assert level.peak.tolist() == by_part.max(axis=1).tolist()


def test_what_begins_as_another_ends_is_not_counted_twice() -> None:
    level = spans(EDGES, np.array([0, 30, 60]), np.array([30, 60, 120]), [4, 4, 4])
    assert level.peak.tolist() == [4] * 6
    assert level.mean == pytest.approx([4] * 6)


def test_a_rate_times_its_time_is_the_number_of_moments() -> None:
    times, counted = np.array([0, 1, 59, 60, 119, 120]), np.array([1, 2, 3, 4, 5, 6])
    for weights, total in ((None, 6), (counted, 21)):
        per_s = rate(EDGES * 1e9, times * 10**9, weights)
        assert (per_s * np.diff(EDGES)).sum() == pytest.approx(total)


def test_a_chart_has_a_scale_that_holds_it_and_is_broken_where_nothing_is_known() -> None:
    values = np.array([0.0, 7.0, np.nan, 33.0, np.nan, 1.0])
    chart = line_chart("Queue <of> a run", "requests", EDGES, [Line("waiting", values, values + 2)])
    for label in (">0<", ">10<", ">40<", ">requests<", ">s since the first arrival<", "Queue &lt;of&gt; a run"):
        assert label in chart
    assert "nan" not in chart
    lines = [part for part in chart.split("<path ") if 'stroke-width="2"' in part and "V" in part.split('"')[1]]
    assert len(lines) == 1 and lines[0].split('"')[1].count("M") == 3


def test_a_limit_is_drawn_where_the_lines_come_near_it() -> None:
    near, far = (line_chart("", "", EDGES, [Line("", np.full(6, top))], ("limit", 100.0)) for top in (60.0, 40.0))
    assert ">limit<" in near and ">limit<" not in far


def test_a_run_of_hours_has_hours_along_its_axis_and_one_of_nothing_a_scale() -> None:
    chart = line_chart("", "", EDGES * 3600, [Line("", np.zeros(6))])
    assert ">h since the first arrival<" in chart and ">120<" not in chart and ">100<" in chart
    assert ">1<" in chart
