"""Constants of the closed-loop points, from one of them in ten.

`vidur-profile` learns constants from the requests of a run; of these runs there are means alone. So it is least squares
on the logarithms of simulated over real TTFT and TPOT, with bounds, and with less weight for what is far off, for some
of the collection's rows are no runs of what they say. The host is the same for all: a step, a sequence, the front end.
Kernels have a factor for each model, number of bits and GPU. All of that was settled before any such error was seen.
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
_CHANGE = 0.05  # for the slopes
_FAR = 0.1  # of a logarithm
_MOST_ROUNDS = 12


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

    def residuals(values: np.ndarray) -> np.ndarray:
        what = fitted(values)
        found = np.array([serve(point, what.of(point)) for point in chosen])
        return np.log(found / [(point.ttft_ms, point.tpot_ms) for point in chosen]).ravel()

    # A factor moves the points of its group alone: all factors are tried at once.
    depends = np.ones((2 * len(chosen), 3 + len(groups)), dtype=int)
    depends[:, 3:] = np.repeat([[point.group == group for group in groups] for point in chosen], 2, axis=0)
    found = least_squares(
        residuals,
        np.ones(3 + len(groups)),
        bounds=(
            [0.0] * 3 + [_FACTOR[0]] * len(groups),
            [*_MOST, *[_FACTOR[1]] * len(groups)],
        ),
        diff_step=_CHANGE,
        jac_sparsity=depends,
        loss="soft_l1",
        f_scale=_FAR,
        max_nfev=_MOST_ROUNDS,
    )
    return fitted(found.x)
