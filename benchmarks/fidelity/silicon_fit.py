"""Constants of the closed-loop points, from one of them in ten.

`vidur-profile` learns constants from the requests of a run; of these runs there are means alone. So what it asks for is
asked of the logarithms of simulated over real mean TTFT and TPOT: each kind in units of its scatter, those far off with
less weight, for some of the collection's rows are no runs of what they say, and each constant held towards nothing. The
host is the same for all: a step, a sequence, the front end. Kernels have a factor for each model, its bits and the GPU.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.fidelity.silicon import Point, simulate
from gpu_simulate_test.latency.calibration import Constants

Group = tuple[str, str, str]
_ONE_IN = 10
_TOO_FEW = 5  # of a group: it has no factor of its own
_UNIT_NS = (1e6, 1e4, 1e7)  # of a step, of a sequence, of the front end
_MOST = (20.0, 50.0, 20.0)  # of these units
_FACTOR = (0.5, 2.0)
_WIDTH = (10.0, 100.0, 10.0, 0.1)  # of these units and of a factor: how far from nothing it may well be
_CHANGE = 0.05  # for the slopes
_HUBER, _MAD = 1.345, 0.6745  # these two and the widths as in the package's own calibration
_LEAST = 0.01  # scatter of a logarithm
_ROUNDS = 2  # of scatter
_MOST_STEPS = 10  # of each round


@dataclass(frozen=True)
class Fitted:
    """What was learned.

    Attributes
    ----------
    host : Constants
        But for the factor on kernels.
    factors : mapping
        On the kernels of each group.
    donors : frozenset of str
        The names of the points that it was learned from.
    """

    host: Constants
    factors: Mapping[Group, float]
    donors: frozenset[str]

    def of(self, point: Point) -> Constants:
        """The constants of a point."""
        return Constants(
            self.host.step_ns, self.host.sequence_ns, self.factors.get(point.group, 1.0), self.host.front_end_ns
        )


def donors(points: Sequence[Point]) -> list[Point]:
    """One in ten of each group, by a digest that knows nothing of them."""
    groups: dict[Group, list[Point]] = defaultdict(list)
    for point in sorted(points, key=lambda point: point.digest):
        groups[point.group].append(point)
    return [point for group in groups.values() if len(group) >= _TOO_FEW for point in group[::_ONE_IN]]


def fit(chosen: Sequence[Point], serve: Callable[[Point, Constants], tuple[float, float]] = simulate) -> Fitted:
    """Fit to these alone; a minute or two."""
    from scipy.optimize import least_squares

    groups = sorted({point.group for point in chosen})

    def fitted(values: np.ndarray) -> Fitted:
        step, sequence, front_end = (float(value) * unit for value, unit in zip(values[:3], _UNIT_NS, strict=True))
        factors = dict(zip(groups, values[3:].tolist(), strict=True))
        host = Constants(step_ns=step, sequence_ns=sequence, front_end_ns=front_end)
        return Fitted(host, factors, frozenset(point.id for point in chosen))

    def logarithms(values: np.ndarray) -> np.ndarray:
        what = fitted(values)
        found = np.array([serve(point, what.of(point)) for point in chosen])
        return np.log(found / [(point.ttft_ms, point.tpot_ms) for point in chosen])

    nothing = np.array([0.0] * 3 + [1.0] * len(groups))
    width = np.array([*_WIDTH[:3], *[_WIDTH[3]] * len(groups)])
    # A factor moves the points of its group alone: all factors are tried at once.
    of_points = np.ones((2 * len(chosen), len(width)), dtype=int)
    of_points[:, 3:] = np.repeat([[point.group == group for group in groups] for point in chosen], 2, axis=0)
    values, before = np.ones(len(width)), nothing
    for _ in range(_ROUNDS):
        scatter = np.maximum(np.median(np.abs(logarithms(before)), axis=0) / _MAD, _LEAST)

        def residuals(values: np.ndarray, scatter: np.ndarray = scatter) -> np.ndarray:
            return np.concatenate([(logarithms(values) / scatter).ravel(), (values - nothing) / width])

        before = values = least_squares(
            residuals,
            values,
            bounds=([0.0] * 3 + [_FACTOR[0]] * len(groups), [*_MOST, *[_FACTOR[1]] * len(groups)]),
            diff_step=_CHANGE,
            jac_sparsity=np.concatenate([of_points, np.eye(len(width), dtype=int)]),
            loss="huber",
            f_scale=_HUBER,
            max_nfev=_MOST_STEPS,
        ).x
    return fitted(values)
