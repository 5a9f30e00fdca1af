"""How far a long work is: a bar with the time left on a terminal; a few lines where stderr is a file or a pipe."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

log = logging.getLogger(__name__)

_BAR_AFTER_S, _REDRAW_S = 2.0, 0.2  # what is over sooner needs no bar
_LINE_AFTER_S, _PARTS = 10.0, 4  # a plain line then, and one at each quarter, not closer than that
_RARER = 8  # within a quarter, a line is that many times as far from the beginning as the last one
_BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt} of {total_fmt} {unit}, {remaining} left{postfix}"

_Item = TypeVar("_Item")
_shown = True


def hide() -> None:
    """Show no progress of this process: it is a job of many, and theirs is told."""
    global _shown
    _shown = False


def on_terminal() -> bool:
    """Whether somebody watches stderr, and not a file or a pipe."""
    return sys.stderr.isatty()


def say(text: str) -> None:
    """Write a line on stderr, above the bar where there is one."""
    if on_terminal():
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)


class Progress:
    """Of one work.

    Parameters
    ----------
    what : str
        In front of the figures.
    total : int
        How much there is, in `unit`.
    initial : int
        What was done before.
    clock : callable
        Seconds.
    """

    def __init__(
        self, what: str, total: int, unit: str, initial: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._total, self._unit, self._clock = what, total, unit, clock
        self.done = self._before = initial
        self._note = ""
        self._began = clock()
        self._due_s = self._again_s = _LINE_AFTER_S  # since then; where no quarter has begun
        self._part = -1
        self._bar = _bar(what, total, unit, initial)

    def update(self, count: int = 1) -> None:
        """So much more is done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif _shown and (passed_s := self._clock() - self._began) >= self._due_s:
            self._tell(passed_s)

    def note(self, text: str) -> None:
        """Say this as well from now on, as what is being tried."""
        self._note = f"; {text}"
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def close(self) -> None:
        """The work is over: nothing is left of a bar."""
        if self._bar is not None:
            self._bar.close()

    def _tell(self, passed_s: float) -> None:
        part, new = _PARTS * self.done // self._total, self.done - self._before
        if part >= _PARTS or (part <= self._part and passed_s < self._again_s):
            return
        left = f", {_written(passed_s / new * (self._total - self.done))} left" if new else ""
        log.info("%s: %d of %d %s%s%s", self._what, self.done, self._total, self._unit, left, self._note)
        self._part, self._due_s, self._again_s = part, passed_s + _LINE_AFTER_S, _RARER * passed_s


@contextmanager
def progress(what: str, total: int, unit: str, initial: int = 0) -> Iterator[Progress]:
    """The progress of a work, as long as the context lasts."""
    one = Progress(what, total, unit, initial)
    try:
        yield one
    finally:
        one.close()


def tracked(items: Iterable[_Item], what: str, total: int, unit: str) -> Iterator[_Item]:
    """The items, and how many of them have been taken, at a thousand moments."""
    every = max(1, total // 1000)
    with progress(what, total, unit) as one:
        for number, item in enumerate(items, start=1):
            yield item
            if not number % every:
                one.update(every)


def _bar(what: str, total: int, unit: str, initial: int) -> Any:
    """Of tqdm; None where nobody would see it."""
    if not _shown or not on_terminal():
        return None
    from tqdm import tqdm

    return tqdm(
        total=total,
        initial=initial,
        desc=what,
        unit=unit,
        delay=_BAR_AFTER_S,
        mininterval=_REDRAW_S,
        leave=False,
        dynamic_ncols=True,
        bar_format=_BAR,
        file=sys.stderr,
    )


def _written(seconds: float) -> str:
    """As 0:05, 12:00, 1:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
