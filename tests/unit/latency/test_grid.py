"""Between measured points a value lies between theirs; a table with holes is filled; more never takes less."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpu_simulate_test.latency.grid import Grid, Line, Surface


def plane(x: float, y: float, z: float) -> float:
    return 2 + 3 * x + 5 * y + 7 * z


POINTS = pd.DataFrame(
    [(x, y, z, plane(x, y, z)) for x, y, z in itertools.product((1, 2, 8), (0, 4), (16, 32, 64))],
    columns=["x", "y", "z", "ms"],
)
AXES = ["x", "y", "z"]


@given(st.floats(1, 8), st.floats(0, 4), st.floats(16, 64))
def test_a_linear_function_is_found_again(x: float, y: float, z: float) -> None:
    assert Grid(POINTS, AXES, "ms")(x, y, z) == pytest.approx(plane(x, y, z))


def test_holes_are_filled_from_their_neighbours() -> None:
    holed = POINTS[~((POINTS["z"] == 32) & (POINTS["x"] == 2))]
    assert Grid(holed, AXES, "ms")(2, 0, 32) == pytest.approx(plane(2, 0, 32))


def test_below_the_table_its_first_point_counts_and_above_it_the_last_slope_goes_on() -> None:
    grid = Grid(POINTS, AXES, "ms")
    assert grid(0, 0, 16) == grid(1, 0, 16)
    assert grid(10, 4, 100) == pytest.approx(plane(10, 4, 100))


@example([0.0] * 8 + [1.0, 1.0, 0.0, 0.0], [10.0, 10.0, 0.0, 6.0])  # beyond the table, on the steeper of two slopes
@given(st.lists(st.floats(0, 100), min_size=12, max_size=12), st.lists(st.floats(0, 10), min_size=4, max_size=4))
def test_more_never_takes_less_however_noisy_the_table(values: list[float], where: list[float]) -> None:
    table = pd.DataFrame(list(itertools.product((0, 3, 7, 9), (1, 5, 8))), columns=["x", "y"]).assign(ms=values)
    grid = Grid(table, ["x", "y"], "ms")
    (x, more_x), (y, more_y) = sorted(where[:2]), sorted(where[2:])
    assert grid(x, y) <= grid(more_x, more_y) + 1e-9


def test_repeated_points_count_by_their_median() -> None:
    table = pd.DataFrame({"x": [1, 1, 1, 2], "ms": [5.0, 6.0, 90.0, 9.0]})
    assert Grid(table, ["x"], "ms")(1) == 6
    assert np.isclose(Grid(table, ["x"], "ms")(1.5), 7.5)


NUMBERS = st.floats(-1e6, 1e6)
LINES = st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 100), st.floats(0, 10)), min_size=1, max_size=6).map(
    lambda rows: Line(*(np.array(column, dtype=float) for column in zip(*sorted(rows), strict=True)))
)


@given(LINES, st.lists(NUMBERS, min_size=1))
def test_a_line_says_the_same_of_one_number_and_of_many(line: Line, numbers: list[float]) -> None:
    assert line.many(np.array(numbers)).tolist() == [line(number) for number in numbers]


@given(LINES, st.integers(0, 1000), st.integers(1, 50), st.integers(1, 60))
def test_a_line_says_the_same_of_a_run_of_numbers(line: Line, x: int, step: int, count: int) -> None:
    assert line.run(x, step, count).tolist() == [line(x + step * number) for number in range(count)]


@given(LINES, LINES, st.integers(1, 50), st.integers(0, 50), st.floats(0, 10), st.integers(0, 3000))
def test_lines_are_added_stretched_and_shifted(
    line: Line, other: Line, scale: int, shift: int, factor: float, x: int
) -> None:
    changed = line.of(scale, shift, factor)
    at = (x + 0.5 - shift) / scale  # off the knots, where these lines jump
    assert changed(at) == pytest.approx(factor * line(x + 0.5))
    assert Line.sum(line, other, Line.constant(7.0))(x) == pytest.approx(line(x) + other(x) + 7)


def test_before_its_first_knot_a_line_is_what_it_is_told_to_be() -> None:
    jump = Line(np.array([1.0]), np.array([5.0]), np.array([2.0]), below=0.0)
    assert [jump(x) for x in (-9, 0, 1, 3)] == [0, 0, 5, 9]
    assert Line.sum(jump, Line.constant(1.0))(0) == 1


@given(st.floats(0, 20), st.floats(-5, 200))
def test_a_surface_is_its_grid_times_a_factor(x: float, z: float) -> None:
    grid = Grid(POINTS[POINTS["y"] == 4], ["x", "z"], "ms")
    assert Surface(grid, 3.0)(x, z) == pytest.approx(3 * grid(x, z), rel=1e-12)
