"""Figures of one run, real or simulated, by the names that tables of many runs have as columns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpu_simulate_test.analysis.checks import is_ok
from gpu_simulate_test.analysis.findings import look_up
from gpu_simulate_test.analysis.load_metrics import Run, load_run, load_samples, load_simulation
from gpu_simulate_test.analysis.samples import STATISTICS, Measured, ints, measure
from gpu_simulate_test.analysis.slo import duration_s, levels, objectives, throughput_of
from gpu_simulate_test.config.schema import EngineLimits, SloConfig
from gpu_simulate_test.io.run_dir import read_run_meta
from gpu_simulate_test.io.study_tables import RANGED
from gpu_simulate_test.io.tables import TBT_QUANTILES, find_table

LATENCIES = ("ttft", "tpot", "tbt", "e2e")
_NAN = float("nan")


def run_figures(run: Run, slo: SloConfig, price_per_hour: float | None, num_gpus: int) -> dict[str, float]:
    """What a table of many runs says of one; definitions as in a comparison.

    Parameters
    ----------
    run : Run
        Of a simulated run with simulations with noise, their mean is taken.
    slo : SloConfig
    price_per_hour : float or None
        Of one GPU.
    num_gpus : int
        That served; of a CPU 1.

    Returns
    -------
    dict of str to float
        ``num_requests``, ``num_failed``; ``duration_s``, from the first arrival to the last completion;
        ``request_rate_per_s``, requests but the first for each second from the first arrival to the last, of a closed
        loop as ``requests_per_s``; ``requests_per_s`` and ``output_tokens_per_s`` of the requests that completed, for
        each second of the duration; ``output_tokens_per_s_per_gpu``; ``interactivity_tokens_per_s``, 1 / median TPOT;
        ``<metric>_<statistic>_ms`` for ttft, tpot, tbt, e2e and mean, p50, p90, p99; ``slo_attainment``, the share of
        requests that meet all objectives, and ``goodput_per_s``; ``cost_per_million_output_tokens``. With two or more
        simulations with noise also ``<name>_low`` and ``<name>_high`` of `RANGED`: 95 % of them lie between. What is
        not known is NaN.
    """
    limits = objectives(slo)
    return _summed(run, [figures(one, limits, price_per_hour, num_gpus) for one in run.samples or [run]])


def figures_of(
    path: Path, run_type: str, slo: SloConfig, price_per_hour: float | None, num_gpus: int | None = None
) -> dict[str, float]:
    """`run_figures` of a finished run directory, the tokens of a simulated run left unread where they can be.

    Parameters
    ----------
    run_type : {"real", "vidur"}
    num_gpus : int, optional
        As the run's own limits say when not given.

    Raises
    ------
    ArtifactError
        As of `gpu_simulate_test.analysis.load_metrics.load_run`.
    """
    meta, limits = read_run_meta(path), objectives(slo)
    if run_type != "vidur" or meta.get("run_type") != run_type or find_table(path, TBT_QUANTILES) is None:
        run = load_run(path, run_type)
        return run_figures(run, slo, price_per_hour, num_gpus_of(run) if num_gpus is None else num_gpus)
    run = load_simulation(path, meta)
    gpus = num_gpus_of(run) if num_gpus is None else num_gpus
    rows = [figures(one, limits, price_per_hour, gpus) for one in load_samples(path, meta)]
    return _summed(run, rows or [figures(run, limits, price_per_hour, gpus)])


def _summed(run: Run, rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Figures of a run from those of its simulations with noise, or its own."""
    names = list(rows[0])
    values = np.array([[one[name] for name in names] for one in rows])
    found = {
        "num_requests": float(len(run.requests)),
        "num_failed": float((~is_ok(run.requests)).sum()),
        **dict(zip(names, values.mean(axis=0).tolist(), strict=True)),
    }
    if len(values) > 1:
        for name in RANGED:
            low, high = np.quantile(values[:, names.index(name)], [0.025, 0.975])
            found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def num_gpus_of(run: Run) -> int:
    """GPUs that served a run, by its own limits; of a CPU, or where it does not say, 1."""
    if look_up(run.meta, "params.hardware.device") == "cpu":
        return 1
    said = [run.meta.get(key) for key in ("settings", "engine", "params")]
    limits = next((one["limits"] for one in said if isinstance(one, dict) and one.get("limits")), None)
    return EngineLimits.model_construct(**limits).num_devices if limits else 1


def figures(run: Run, limits: dict[str, float], price_per_hour: float | None, num_gpus: int) -> dict[str, float]:
    """What `run_figures` takes the mean of, of one simulation or real run; `limits` are its `objectives`."""
    rows = run.requests[is_ok(run.requests)].reset_index(drop=True)
    num_tokens = ints(rows["num_decode_tokens_actual"])
    took_s, arrival = duration_s(run), ints(run.requests["arrival_time_ns"])
    requests_per_s, tokens_per_s = throughput_of(run)
    latencies = _latencies(measure(run, rows, num_tokens))
    attainment, goodput = levels(run, limits)[-2:].tolist() if limits else (_NAN, _NAN)
    return {
        "duration_s": took_s,
        "request_rate_per_s": requests_per_s
        if run.closed_loop
        else _ratio(len(arrival) - 1, float(arrival.max() - arrival.min()) / 1e9),
        "requests_per_s": requests_per_s,
        "output_tokens_per_s": tokens_per_s,
        "output_tokens_per_s_per_gpu": tokens_per_s / num_gpus,
        "interactivity_tokens_per_s": _ratio(1e3, latencies["tpot_p50_ms"]),
        **latencies,
        "slo_attainment": attainment,
        "goodput_per_s": goodput,
        "cost_per_million_output_tokens": _NAN
        if price_per_hour is None
        else _ratio(price_per_hour * num_gpus * 1e6 / 3600, tokens_per_s),
    }


def _latencies(measured: Measured) -> dict[str, float]:
    found: dict[str, float] = {}
    for metric in LATENCIES:
        values = dict(zip(STATISTICS, (measured.statistics(metric) / 1e6).tolist(), strict=True))
        found |= {f"{metric}_{name}_ms": values[name] for name in ("mean", "p50", "p90", "p99")}
    return found


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else _NAN
