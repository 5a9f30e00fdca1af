"""What a stage logs, shown on stderr."""

import logging
import sys


def log_to_stderr(verbose: object, label: str = "") -> None:
    """Show what our loggers say, once.

    Parameters
    ----------
    verbose : object
        ``hydra.verbose``: True for all there is, or the names of loggers.
    label : str
        Before each line.
    """
    logger = logging.getLogger("gpu_simulate_test")
    logger.setLevel(logging.DEBUG if verbose is True else logging.INFO)
    shown = logging.getLogger() if verbose else logger
    if not any(handler.get_name() == __name__ for handler in shown.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.set_name(__name__)
        handler.setFormatter(logging.Formatter(f"{label}%(message)s"))
        shown.addHandler(handler)
