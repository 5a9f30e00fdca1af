"""What a stage logs, shown on stderr: all of it on a terminal, but a few lines where it is a file or a pipe."""

import logging

from gpu_simulate_test.io.progress import on_terminal, say

_FEW = 7  # lines, the last one for a warning; stage.log has all


class _Shown(logging.Handler):
    """Shows records between the redraws of a bar."""

    def __init__(self, limited: bool) -> None:
        super().__init__()
        self._limited, self._left, self._told = limited, _FEW, False

    def emit(self, record: logging.LogRecord) -> None:
        """Show one, unless there were many."""
        try:
            if not self._limited or on_terminal():
                say(self.format(record))
            elif self._left > (record.levelno < logging.WARNING):
                self._left -= 1
                say(self.format(record))
            elif not self._told:
                self._told = True
                say("more of this is in stage.log of the run directory")
        except Exception:
            self.handleError(record)


def log_to_stderr(verbose: object, label: str = "", level: int = logging.INFO) -> None:
    """Show what our loggers say, once.

    Parameters
    ----------
    verbose : object
        ``hydra.verbose``: True for all there is, or the names of loggers.
    label : str
        Before each line.
    level : int
        What is less than that is not shown, unless asked for by `verbose`.
    """
    logger = logging.getLogger("gpu_simulate_test")
    logger.setLevel(logging.DEBUG if verbose is True else logging.INFO)
    shown = logging.getLogger() if verbose else logger
    if not any(handler.get_name() == __name__ for handler in shown.handlers):
        handler = _Shown(limited=not verbose)
        handler.set_name(__name__)
        handler.setLevel(logging.NOTSET if verbose else level)
        handler.setFormatter(logging.Formatter(f"{label}%(message)s"))
        shown.addHandler(handler)
