"""CDFs become pictures in a process of their own, which imports matplotlib and draws while other things are done."""

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

COLOURS = {"real": "#1b4f8f", "sim": "#d9730d"}
INK, SOFT, GRID = "#26323f", "#5b6774", "#dfe4ea"
STYLE: dict[str, Any] = {  # matplotlib's settings
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "font.family": ["DejaVu Sans"],
}
# -P: nothing is imported from the folder one happens to be in.
_COMMAND = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """What is drawn of one metric.

    Attributes
    ----------
    title, below, x_label, y_label : str
        Two lines above the axes, and what is along them.
    levels : dict of str to float
        Shares that are marked, by name.
    curves : dict of str to tuple of (Floats, Floats, Floats)
        By side, real and sim: the corners of its CDF, values in ms and shares, of shape (n_corners,); its values at
        the levels, ms, of shape (n_levels,). Without a side the axes are empty.
    limits : (float, float)
        Of the values, ms.
    text : str
        Lines of figures below the axes; why they are empty.
    """

    title: str
    below: str
    x_label: str
    y_label: str
    levels: dict[str, float]
    curves: dict[str, tuple[Floats, Floats, Floats]]
    limits: tuple[float, float]
    text: str


class Artist:
    """The process that draws. It ends with the context, whatever happens there."""

    def __enter__(self) -> "Artist":
        pipe = subprocess.PIPE
        # In a group of its own it hears no Ctrl-C: what that ends is decided here.
        self._process = subprocess.Popen(_COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, process_group=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def begin(self, pictures: Sequence[Picture]) -> None:
        """Have pictures drawn, without waiting for them; once."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([asdict(picture) for picture in pictures], default=list).encode())
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended; `drawn` says why
        self._process.stdin = None

    def drawn(self) -> list[bytes]:
        """Wait for the pictures; each is the content of a PNG file.

        Raises
        ------
        RuntimeError
            The process failed; with what it said.
        """
        drawn, said = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"drawing ended with {self._process.returncode}: {said.decode(errors='replace')}")
        return [base64.b64decode(image) for image in drawn.splitlines()]


def serve() -> None:
    """The other end of `Artist`: pictures as JSON from stdin, PNG files to stdout, in Base64 and a line each."""
    from gpu_simulate_test.analysis.plots import png  # while there is nothing to draw yet

    for picture in json.load(sys.stdin):
        print(base64.b64encode(png(Picture(**picture))).decode())
