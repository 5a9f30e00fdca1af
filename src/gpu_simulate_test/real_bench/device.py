"""One measurement at a time on a device: two would measure each other."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gpu_simulate_test.config.schema import HardwareConfig
from gpu_simulate_test.errors import MachineError
from gpu_simulate_test.io.locks import locked

log = logging.getLogger(__name__)


@contextmanager
def alone_on(hardware: HardwareConfig) -> Iterator[None]:
    """Hold the device of this process; wait for whoever of the same user on this machine measures on it, and say so.

    Raises
    ------
    MachineError
        The lock cannot be written, in the folder of temporary files.
    """
    name = _device(hardware)
    path = Path(tempfile.gettempdir()) / f"gpu-simulate-test-{os.getuid()}-{name}.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(
                locked(path, lambda: log.warning("waiting for %s: something else is being measured on it", name))
            )
        except OSError as error:
            raise MachineError(f"cannot write: {path}: {error.strerror}; set TMPDIR to another folder") from error
        yield


def _device(hardware: HardwareConfig) -> str:
    """Engines serve on the first device that they see."""
    if hardware.device == "cpu":
        return "cpu"
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    return f"cuda-{''.join(letter if letter.isalnum() else '_' for letter in first)}"
