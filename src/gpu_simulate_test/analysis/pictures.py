"""The CDF of each metric, real against simulated, as the files that the summary shows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gpu_simulate_test.analysis.compare import Comparison
from gpu_simulate_test.analysis.drawing import COLOURS, Picture
from gpu_simulate_test.analysis.numbers import NS_PER_MS, decimals, ms, percent
from gpu_simulate_test.analysis.samples import METRICS, PERCENTILES, Floats
from gpu_simulate_test.analysis.terms import NAMES, TITLES
from gpu_simulate_test.analysis.verdict import NOT_JUDGED
from gpu_simulate_test.analysis.wording import beyond, cdf, cdf_limits, taken_over
from gpu_simulate_test.io.files import write_atomic


def picture_paths(folder: Path) -> list[Path]:
    """``<metric>_cdf.png``, one a metric."""
    return [folder / f"{metric}_cdf.png" for metric in METRICS]


def write_pictures(folder: Path, images: Sequence[bytes]) -> None:
    """Write the drawn pictures.

    Raises
    ------
    MachineError
        The folder cannot be written.
    """
    for path, image in zip(picture_paths(folder), images, strict=True):
        write_atomic(path, lambda stream, image=image: stream.write(image))  # type: ignore[misc]


def pictures(comparison: Comparison) -> list[Picture]:
    """What to draw, one a metric."""
    return [_picture(comparison, metric) for metric in METRICS]


def _picture(comparison: Comparison, metric: str) -> Picture:
    rows = comparison.of_metric(metric).set_index("statistic")
    why_not = comparison.unjudged.get(metric)
    known = why_not is None
    return Picture(
        title=TITLES[metric],
        below=f"real against simulated, n = {taken_over(comparison, metric)}{beyond(comparison, metric)}"
        if known
        else NOT_JUDGED,
        x_label=f"{NAMES[metric]}, ms",
        y_label=f"{'token gaps' if metric == 'tbt' else 'requests'} at or below, %",
        levels={name.upper(): level / 100 for name, level in PERCENTILES.items()},
        curves={
            side: (*cdf(comparison, side, metric), _values(rows.loc[list(PERCENTILES), f"{side}_ns"]))
            for side in (COLOURS if known else ())
        },
        limits=cdf_limits(comparison, metric) if known else (0.0, 1.0),
        text=why_not or _table_text(rows),
    )


def _values(times_ns: "pd.Series[float]") -> Floats:
    return np.asarray(times_ns, dtype=np.float64) / NS_PER_MS


def _table_text(rows: pd.DataFrame) -> str:
    """Percentiles as four lines of monospaced text."""
    digits = decimals(rows[["real_ns", "sim_ns"]])
    lines = ["ms   " + "".join(f"{name.upper() if name != 'mean' else name:>13}" for name in rows.index)]
    for name, column in (("real", "real_ns"), ("sim", "sim_ns")):
        lines.append(f"{name:<5}" + "".join(f"{ms(value, digits):>13}" for value in rows[column]))
    lines.append("error" + "".join(f"{percent(value, sign=True):>13}" for value in rows["relative_error"]))
    return "\n".join(lines)
