"""What one simulation says of its load: how many requests met the objectives, and whether a longer run would agree."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpu_simulate_test.errors import ArtifactError
from gpu_simulate_test.io.tables import REQUEST_METRICS, read_table
from gpu_simulate_test.studies.capacity import MET, MISSED, SHORT, Trial
from gpu_simulate_test.studies.jobs import Outcome

Ints = npt.NDArray[np.int64]

ENOUGH = 10  # times the mean time in the system: as long must requests arrive for a run to say anything
_GROWTH = 0.05  # of the requests that arrive in a run's second half: so many more in the system are a queue that grows
_CHANCE = 3.0  # standard deviations; how many are in the system scatters as its square root


def trial_of(outcome: Outcome, value: float, root: Path) -> Trial:
    """What the simulation of a job says.

    Parameters
    ----------
    outcome : Outcome
        Of a job that ended well.
    value : float
        Its rate, or its concurrency.
    root : Path
        ``output.root``.

    Raises
    ------
    ArtifactError
        Its run cannot be read, or has no attainment.
    """
    share = outcome.figures.get("slo_attainment")
    if share is None or outcome.run_dir is None:
        raise ArtifactError(f"no attainment is known of job {outcome.job}: {outcome.run_dir}; run the sweep again")
    times = ["arrival_time_ns", "completion_time_ns"]
    table = read_table(root / outcome.run_dir, REQUEST_METRICS, times).dropna()
    arrival, completion = (np.sort(table[name].to_numpy(dtype=np.int64)) for name in times)
    return Trial(
        value=value,
        job=outcome.job,
        attainment=share,
        low=outcome.figures.get("slo_attainment_low"),
        high=outcome.figures.get("slo_attainment_high"),
        num_requests=len(arrival),
        throughput=throughput(completion),
        e2e_s=float(completion.mean() - arrival.mean()) / 1e9,
        lasting=lasting(arrival, completion),
    )


def throughput(completion_ns: Ints) -> float:
    """Requests/s between the first and the last quarter of them: neither the ramp nor the last ones are in it.

    Parameters
    ----------
    completion_ns : ndarray of shape (n_requests,)
        Ascending.
    """
    first, last = np.quantile(completion_ns, [0.25, 0.75])
    return float(len(completion_ns) / 2 / max(last - first, 1.0) * 1e9)


def lasting(arrival_ns: Ints, completion_ns: Ints) -> str:
    """Whether a longer run would say the same.

    Parameters
    ----------
    arrival_ns, completion_ns : ndarray of shape (n_requests,)
        Ascending, each for itself.

    Returns
    -------
    str
        `SHORT`, where requests arrived for less than `ENOUGH` times the mean time in the system; `MISSED`, where more
        were in the system at the last arrival than half-way, by more than 5 % of those that arrived in between and
        more than chance explains; else `MET`.
    """
    window, e2e = arrival_ns[-1] - arrival_ns[0], completion_ns.mean() - arrival_ns.mean()
    if window < ENOUGH * e2e:
        return SHORT
    moments = np.array([arrival_ns[0] + window // 2, arrival_ns[-1]])
    arrived = np.searchsorted(arrival_ns, moments, side="right")
    half_way, at_end = (arrived - np.searchsorted(completion_ns, moments, side="right")).tolist()
    grown = at_end - half_way
    enough = grown > _GROWTH * (arrived[1] - arrived[0]) and grown > _CHANCE * float(np.sqrt(at_end + half_way))
    return MISSED if enough else MET
