"""What must hold of a run's requests, whoever wrote them."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.tables import REQUEST_METRICS, Table, find_table

# The order in which they happen: each is at or after the one before it.
_TIMELINE = ("submit_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "completion_time_ns")


@dataclass(frozen=True)
class Check:
    """Refuses a table, naming the first request that breaks a rule."""

    path: Path
    advice: str

    def file(self, table: Table) -> Path:
        """The file of a table that was read, CSV or Parquet."""
        return find_table(self.path, table) or self.path / table.filename

    def refuse(self, bad: npt.ArrayLike, ids: npt.ArrayLike, what: str, table: Table) -> None:
        """Raise ArtifactError when any of `bad`, of shape (n,), is true; `ids` are the requests concerned."""
        mask = np.asarray(bad, dtype=bool)
        if mask.any():
            concerned = np.unique(np.asarray(ids)[mask])
            more = f" and {len(concerned) - 1} more" if len(concerned) > 1 else ""
            raise ArtifactError(f"{what}: {self.file(table)}: request {concerned[0]}{more}; {self.advice}")


def is_ok(requests: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which requests completed, of shape (n_requests,)."""
    return np.asarray(requests["status"] == "ok", dtype=bool)


def is_warmup(requests: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which requests are warm-up, of shape (n_requests,)."""
    if "is_warmup" not in requests:
        return np.zeros(len(requests), dtype=bool)
    return requests["is_warmup"].to_numpy(dtype=bool)


def check_presence(
    check: Check, requests: pd.DataFrame, ok: npt.NDArray[np.bool_], may_miss: tuple[str, ...] = ()
) -> None:
    """Demand of an ok request every time its table has a column for, but `may_miss`; of a failed one none."""
    ids = requests["request_id"]
    for column in (*_TIMELINE, "ttft_ns"):
        if column in requests:
            empty = requests[column].isna().to_numpy(dtype=bool)
            check.refuse(ok & empty & (column not in may_miss), ids, f"an ok request without {column}", REQUEST_METRICS)
            check.refuse(~ok & ~empty, ids, f"a failed request with a {column}", REQUEST_METRICS)


def check_times(check: Check, requests: pd.DataFrame) -> None:
    """Demand that times of ok requests follow each other, and that TTFT counts from the arrival."""
    done = requests[is_ok(requests)]
    ids = done["request_id"]
    known = [column for column in ("arrival_time_ns", *_TIMELINE) if column in done]
    for earlier, column in combinations(known, 2):
        check.refuse(
            (done[column] < done[earlier]).fillna(False), ids, f"{column} is before {earlier}", REQUEST_METRICS
        )
    ttft = done["first_token_time_ns"] - done["arrival_time_ns"]
    differs = (done["ttft_ns"] != ttft).fillna(done["ttft_ns"].isna() != ttft.isna())
    check.refuse(differs, ids, "ttft_ns is not first_token_time_ns - arrival_time_ns", REQUEST_METRICS)
