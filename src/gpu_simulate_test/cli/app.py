"""One wrapper around every stage: typed config in, run directory out, one line per error."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gpu_simulate_test.config.paths import config_dir
from gpu_simulate_test.config.resolvers import register_resolvers
from gpu_simulate_test.config.schema import STAGES, HydraRecord
from gpu_simulate_test.errors import ConfigError, StageError

if TYPE_CHECKING:  # pandas comes with it, and --help must answer at once
    from gpu_simulate_test.io.run_dir import RunDir

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def stage_main(stage: str, run: Callable[[Any, HydraRecord], Path]) -> Callable[[], None]:
    """Make the console entry point of a stage.

    Parameters
    ----------
    stage : str
        Name of its file in the config tree, and of its typed config.
    run : callable
        Takes the typed config and Hydra's record of the job, returns the finished run directory.

    Returns
    -------
    callable
        Exits 0, or with the code of the error; prints the run directory as the last line of stdout.
    """

    def main() -> None:
        sys.exit(_run_hydra(stage, run))

    return main


def _run_hydra(stage: str, run: Callable[[Any, HydraRecord], Path]) -> int:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises instead of printing a page
    register_resolvers()
    store = ConfigStore.instance()
    for name, schema in STAGES.items():
        store.store(group="schema", name=name, node=schema, package="_global_")
    exit_codes = [0]

    def job(config: DictConfig) -> None:
        # In a sweep a failed job must not stop the others: its code is kept, the sweep goes on.
        exit_codes.append(_run_job(config, run))

    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=stage)(job)()
    except (HydraException, OmegaConfBaseException, ConfigError) as error:
        return _report(_one_line(error), ConfigError.exit_code)
    except KeyboardInterrupt:
        return _report("interrupted", INTERRUPTED)
    return max(exit_codes)


def _run_job(config: DictConfig, run: Callable[[Any, HydraRecord], Path]) -> int:
    _log_to_stderr()
    record = HydraRecord(
        config_name=str(HydraConfig.get().job.config_name),
        config_path=str(config_dir()),
        overrides=list(HydraConfig.get().overrides.task),
        resolved=OmegaConf.to_container(config, resolve=True),  # type: ignore[arg-type]
        hydra=OmegaConf.to_container(OmegaConf.create({"hydra": HydraConfig.get()}), resolve=False),  # type: ignore[arg-type]
    )
    try:
        path = run(OmegaConf.to_object(config), record)
    except StageError as error:
        return _report(_one_line(error), error.exit_code)
    except OmegaConfBaseException as error:
        return _report(_one_line(error), ConfigError.exit_code)
    print(path.absolute(), flush=True)
    return 0


def write_hydra_record(run: "RunDir", record: HydraRecord) -> None:
    """Keep Hydra's resolved config, its own settings and the overrides in ``.hydra/``."""
    run.write_text(".hydra/config.yaml", OmegaConf.to_yaml(record.resolved))
    run.write_text(".hydra/hydra.yaml", OmegaConf.to_yaml(record.hydra))
    run.write_text(".hydra/overrides.yaml", OmegaConf.to_yaml(record.overrides))


def _log_to_stderr() -> None:
    logger = logging.getLogger("gpu_simulate_test")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


def _one_line(error: BaseException) -> str:
    """One line of an error: Hydra and OmegaConf spread theirs over a page."""
    if isinstance(error, StageError):
        return " ".join(str(error).split())
    if isinstance(error.__cause__, StageError):
        return _one_line(error.__cause__)
    lines = []
    for source in (error, error.__cause__):
        for line in str(source or "").splitlines():
            if "Config search path" in line or "full_key:" in line:
                break
            lines.append(line.strip())
    return "; ".join(line for line in lines if line) + "; see --help"


def _report(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code
