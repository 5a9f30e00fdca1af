"""``compare-runs``: how far the simulation is from the real run."""

import logging
import sys
from pathlib import Path

from gpu_simulate_test.cli.app import stage_main
from gpu_simulate_test.config.ids import stable_id
from gpu_simulate_test.config.schema import CompareRunsConfig, HydraRecord
from gpu_simulate_test.errors import GateError

_log = logging.getLogger(__name__)

# Overrides that name a workload; without one, the newest pair of any workload is compared.
_OF_THE_RUNS = ("model", "hardware", "workload", "backend", "limits", "profile")
_NAMING = ("experiment", "model", "workload")


def run(config: CompareRunsConfig, record: HydraRecord) -> Path:
    """Compare a real run with a simulated one."""
    from gpu_simulate_test.analysis.report import comparison_lines, comparison_table, verdict_line
    from gpu_simulate_test.analysis.stage import compare_runs, find_pair
    from gpu_simulate_test.io.progress import on_terminal
    from gpu_simulate_test.io.run_dir import is_finished, open_run_dir, read_run_meta
    from gpu_simulate_test.io.workload import load_workload, workload_path

    root = Path(config.output.root)
    named = any(item.lstrip("+~").startswith(_NAMING) for item in record.overrides)
    given_real, given_sim = (Path(one) if one else None for one in (config.real_run_dir, config.sim_run_dir))
    wanted = (
        load_workload(workload_path(config), config.model.id).sha256
        if named and not (given_real or given_sim)
        else None
    )
    real, sim = find_pair(root, given_real, given_sim, wanted)
    ids = [str(read_run_meta(one).get("run_id", one.name)) for one in (real, sim)]
    ended = [str(read_run_meta(one).get("ended_at")) for one in (real, sim)]
    settings = {"mismatch": config.allow_mismatch, "tolerance": config.tolerance, "slo": config.slo.model_dump()}
    path = root / "comparisons" / stable_id("compare", {"runs": ids, "ended": ended, **settings})
    report = (path / "report.html").absolute()
    if config.gate and not config.overwrite and is_finished(path):  # a verdict stands, however often it is asked for
        verdict = str(read_run_meta(path).get("verdict"))
        _check_gate(verdict, verdict, report)
        return path
    with open_run_dir(path, config, record) as target:
        assessment = compare_runs(
            real,
            sim,
            target,
            tolerance=config.tolerance,
            allow_mismatch=config.allow_mismatch,
            slo=config.slo,
        )
        of_real = read_run_meta(real)  # what was compared, whatever the settings of this command say
        served = {key: value for key, value in (of_real.get("params") or {}).items() if key in _OF_THE_RUNS}
        target.finish(
            run_type="compare",
            model=of_real.get("model", config.model.id),
            real_run_dir=str(real.absolute()),
            sim_run_dir=str(sim.absolute()),
            verdict=assessment.verdict,
            params=config.model_dump() | served,
        )
    if on_terminal():
        print(comparison_table(assessment.comparison), file=sys.stderr)
    else:
        for line in comparison_lines(assessment.comparison):
            _log.info(line)
    if not record.multirun:
        print(f"report: {report}", file=sys.stderr)
    if config.gate:
        _check_gate(assessment.verdict, verdict_line(assessment), report)
    return path


def _check_gate(verdict: str, line: str, report: Path) -> None:
    from gpu_simulate_test.analysis.verdict import IN_SAMPLE, OFF, VOID

    if verdict == IN_SAMPLE:
        raise GateError(
            f"the verdict is {line}, which proves nothing: {report}; compare a run that it was not calibrated on"
        )
    if verdict in (OFF, VOID):
        raise GateError(f"the verdict is {line}: {report}; gate=false only reports it")


main = stage_main("compare_runs", run)

if __name__ == "__main__":
    main()
