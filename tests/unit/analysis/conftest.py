"""Comparisons of these tests draw in this process, which imports matplotlib once; `test_drawing` is of the other."""

from collections.abc import Sequence

import pytest

from gpu_simulate_test.analysis import stage
from gpu_simulate_test.analysis.drawing import Picture


class DrawsHere:
    """Draws what it is given."""

    def __enter__(self) -> "DrawsHere":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def begin(self, pictures: Sequence[Picture]) -> None:
        from gpu_simulate_test.analysis.plots import png

        self._drawn = [png(picture) for picture in pictures]

    def drawn(self) -> list[bytes]:
        return self._drawn


@pytest.fixture(autouse=True)
def _draws_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "Artist", DrawsHere)
