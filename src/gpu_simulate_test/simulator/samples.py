"""Further simulations of the same workload with noise, on as many processes as the machine has cores."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.errors import MachineError
from gpu_simulate_test.io.workload import Workload
from gpu_simulate_test.latency.calibration import NO_DOUBT, NOTHING, Calibrated, Constants
from gpu_simulate_test.latency.model import LatencyModel
from gpu_simulate_test.latency.noise import Noise, Noisy
from gpu_simulate_test.simulator.cluster import Core
from gpu_simulate_test.simulator.run_files import write_sample
from gpu_simulate_test.spans import Floats
from gpu_simulate_test.timeline import Timeline

_POLL_S = 0.2
_STOPPED = -1

Run = Callable[[LatencyModel, Constants, Callable[[int], object]], Timeline]
"""Simulates the workload with a latency model and constants; tells how many requests completed."""


@dataclass(frozen=True)
class Samples:
    """Simulations to do, each of which could be as well as the one without doubt.

    Attributes
    ----------
    folders : list of pathlib.Path
        One a simulation; its number is where in the record of noise it begins, whatever process does it.
    kernels : LatencyModel
        Without constants and noise.
    noise : Noise or None
        How iterations scatter.
    constants, deviation : Constants
        Of a calibration, and how well they are known.
    """

    folders: list[Path]
    workload: Workload
    limits: EngineLimits
    kernels: LatencyModel
    noise: Noise | None
    constants: Constants = NOTHING
    deviation: Constants = NO_DOUBT

    def write(self, number: int, run: Run, on_finished: Callable[[int], object]) -> Floats:
        """Do one; see `write_sample`."""
        rng = np.random.default_rng(number)
        offset = self.noise.draw_offset(rng) if self.noise else 0
        constants = self.constants.drawn(self.deviation, rng)
        latency = Calibrated.of(self.kernels, constants, self.limits)
        if self.noise:
            latency = Noisy(latency, self.noise, offset)
        line = run(latency, constants, on_finished)
        self.folders[number].mkdir(parents=True)
        return write_sample(self.folders[number], self.workload, line)

    def here(self, run: Run, on_finished: Callable[[int], object]) -> list[Floats]:
        """Do all in this process; `latency_percentiles` of each."""
        return [self.write(number, run, on_finished) for number in range(len(self.folders))]

    def apart(self, core: Core, processes: int, on_finished: Callable[[int], object]) -> list[Floats]:
        """Do all by our core in `processes` processes; the same files and percentiles as `here`.

        Raises
        ------
        MachineError
            A process ended in the middle.
        """
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of ours hold
        finished = context.Value("q", 0)
        with ProcessPoolExecutor(processes, context, _set_up, (self, core, finished)) as pool:
            try:
                jobs = [pool.submit(_work, number) for number in range(len(self.folders))]
                told, left = 0, set(jobs)
                while left:
                    left = wait(left, timeout=_POLL_S).not_done
                    done = finished.value
                    on_finished(done - told)
                    told = done
                return [job.result() for job in jobs]
            except BrokenProcessPool as error:
                raise MachineError("a process that simulated was ended: out of memory? lower vidur.samples") from error
            except BaseException:
                finished.value = _STOPPED
                pool.shutdown(cancel_futures=True)
                raise


_job: tuple[Samples, Core, Any]  # of a process that `apart` started, and the count of finished requests


def _set_up(*job: Any) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started us says when to stop


def _work(number: int) -> Floats:
    samples, core, finished = _job
    parent = os.getppid()

    def count(requests: int) -> None:
        with finished.get_lock():
            if finished.value == _STOPPED or os.getppid() != parent:
                raise InterruptedError("nobody waits for this simulation")
            finished.value += requests

    return samples.write(number, core.run_with, count)
