"""What the charts of a sweep are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Okabe and Ito's, which the colour-blind can tell apart; but for the yellow, which white paper swallows.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#26323f")
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
_FAINT = "#b3bcc6"


@dataclass(frozen=True)
class Mark:
    """One job in a chart.

    Attributes
    ----------
    job : int
        Another for each mark of a chart.
    x, y : float
        Its place; without one or the other it is not drawn.
    title : str
        What is told of it where a pointer rests on it.
    href : str or None
        Where it leads.
    low, high : float
        The range of its figure; NaN where not known.
    misses : bool
        It is hollow.
    name : str
        What is written beside it where there is room.
    """

    job: int
    x: float
    y: float
    title: str
    href: str | None
    low: float = float("nan")
    high: float = float("nan")
    misses: bool = False
    name: str = ""


@dataclass(frozen=True)
class Line:
    """Jobs of one setting; `looks` as of `gpu_simulate_test.studies.points.Group`."""

    code: str
    looks: tuple[int, int] | None
    marks: Sequence[Mark]

    @property
    def colour(self) -> str:
        """Of lines and marks."""
        return _FAINT if self.looks is None else _COLOURS[self.looks[0] % len(_COLOURS)]

    @property
    def shape(self) -> str:
        """Of the marks."""
        return "o" if self.looks is None else _MARKS[self.looks[1] % len(_MARKS)]

    @property
    def dashes(self) -> Any:
        """Of the line."""
        return "-" if self.looks is None else _LINES[self.looks[1] % len(_LINES)]


@dataclass(frozen=True)
class Chart:
    """What is drawn.

    Attributes
    ----------
    title, x_label, y_label : str
    lines : sequence of Line
    limit : (float, str), optional
        A value of the figure at which a line is drawn, and its name.
    front : sequence of Mark
        Corners of the front, by ascending ``x``.
    ticks : sequence of float
        Where ``x`` has its ticks; anywhere without them.
    codes : bool
        Each line is named at its end.
    span : (float, float), optional
        Of the figure's axis.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    limit: tuple[float, str] | None = None
    front: Sequence[Mark] = ()
    ticks: Sequence[float] = ()
    codes: bool = True
    span: tuple[float, float] | None = None
