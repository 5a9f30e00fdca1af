"""Who made tokens when, and the times between them, in as many numbers as there are runs of iterations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spans:
    """Runs of iterations in each of which a request made a token, by ascending request and time.

    Attributes
    ----------
    request, first, count : numpy.ndarray of shape (n_spans,)
        The request, the first iteration and the number of them.
    token_ids : numpy.ndarray of shape (n_spans,) or None
        Of a real run, whose spans are of one token each.
    """

    request: Ints
    first: Ints
    count: Ints
    token_ids: Ints | None = None

    def of_requests(self, begin: int, end: int) -> "Spans":
        """Those of the requests from `begin` up to `end`."""
        some = slice(*np.searchsorted(self.request, (begin, end)).tolist())
        token_ids = None if self.token_ids is None else self.token_ids[some]
        return Spans(self.request[some], self.first[some], self.count[some], token_ids)

    def without(self, requests: Sequence[int]) -> "Spans":
        """All but those of these requests."""
        if not requests:
            return self
        kept = ~np.isin(self.request, np.fromiter(requests, dtype=np.int64))
        token_ids = None if self.token_ids is None else self.token_ids[kept]
        return Spans(self.request[kept], self.first[kept], self.count[kept], token_ids)

    def counts(self, num_requests: int) -> Ints:
        """Output tokens of each request, shape (num_requests,)."""
        return np.bincount(self.request, weights=self.count, minlength=num_requests).astype(np.int64)

    def iterations(self) -> Ints:
        """The iteration of every token, one after another, shape (n_tokens,)."""
        begins = np.cumsum(self.count) - self.count
        return np.repeat(self.first - begins, self.count) + np.arange(int(self.count.sum()))

    def gaps(self, out_ns: Ints, later_ns: int = 0) -> "Gaps":
        """The times between tokens: those who make tokens in two iterations one after the other share theirs.

        Parameters
        ----------
        out_ns : numpy.ndarray of shape (n_iterations,)
            When the tokens of each come out.
        later_ns : int
            By which all but a request's first come out later.
        """
        sharing = np.zeros(len(out_ns) + 1, dtype=np.int64)
        np.add.at(sharing, self.first + 1, 1)
        np.add.at(sharing, self.first + self.count, -1)
        again = np.flatnonzero(self.request[1:] == self.request[:-1])  # the next span is of the same request
        between = out_ns[self.first[again + 1]] - out_ns[self.first[again] + self.count[again] - 1]
        if later_ns:
            begins = np.diff(self.request, prepend=-1) != 0
            second = self.first[begins & (self.count > 1)] + 1
            np.add.at(sharing, second, -1)
            np.add.at(sharing, second + 1, 1)
            first = out_ns[second] - out_ns[second - 1] + later_ns
            alone = np.isin(again, np.flatnonzero(begins & (self.count == 1)))
            between = np.concatenate([first, between + later_ns * alone])
        weights = np.cumsum(sharing)[: len(out_ns)]
        shared = np.flatnonzero(weights)
        return Gaps.of(
            np.concatenate([out_ns[shared] - out_ns[shared - 1], between]),
            np.concatenate([weights[shared], np.ones(len(between), dtype=np.int64)]),
        )


@dataclass(frozen=True)
class Gaps:
    """Times between tokens, ascending, and how many tokens came after each.

    Attributes
    ----------
    values, upto : numpy.ndarray of shape (n_values,)
        A time, ns, and the number of tokens whose time is at most that.
    """

    values: Ints
    upto: Ints

    @classmethod
    def of(cls, values: Ints, weights: Ints | None = None) -> "Gaps":
        """Values, each counted once, or `weights` times."""
        order = np.argsort(values, kind="stable")
        return cls(values[order], np.arange(1, len(values) + 1) if weights is None else np.cumsum(weights[order]))

    def quantiles(self, levels: npt.ArrayLike) -> Floats:
        """Quantiles, ns, at levels from 0 to 1, interpolated linearly; NaN where there is no value."""
        asked = np.asarray(levels, dtype=np.float64)
        if not len(self.values):
            return np.full(asked.shape, np.nan)
        place = asked * (self.upto[-1] - 1)
        low = np.floor(place)
        below = self.values[np.searchsorted(self.upto, low, side="right")]
        above = self.values[np.searchsorted(self.upto, np.ceil(place), side="right")]
        out: Floats = below + (above - below) * (place - low)
        return out
