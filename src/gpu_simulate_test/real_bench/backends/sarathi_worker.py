"""Sarathi-Serve's worker from our side: a Ray actor that answers on a socket, and may die."""

import logging
from typing import Any

import ray

from gpu_simulate_test.errors import MachineError

_POLL_S = 1  # how often a worker that does not answer is asked whether it lives
_STEP_LIMIT_S = 600  # kernels compile at their first call


def start_ray() -> None:
    """Start a Ray of our own, quiet; Sarathi-Serve then uses it. Nor does Sarathi-Serve itself write to stdout."""
    logging.getLogger("sarathi").setLevel(logging.ERROR)
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


class WatchedSocket:
    """The socket a worker answers on. Theirs is waited on for ever when the worker has died."""

    def __init__(self, socket: Any, worker: Any) -> None:
        self._socket = socket
        self._worker = worker

    def recv(self) -> bytes:
        """The answer.

        Raises
        ------
        MachineError
            The worker died, or has not answered for ten minutes.
        """
        for _ in range(_STEP_LIMIT_S // _POLL_S):
            if self._socket.poll(_POLL_S * 1000):
                answer: bytes = self._socket.recv()
                return answer
            self._check_alive()
        raise MachineError(f"Sarathi-Serve's worker has not answered for {_STEP_LIMIT_S} s; see its log in /tmp/ray")

    def _check_alive(self) -> None:
        try:
            ray.get(self._worker.execute_method.remote("get_model_parallel_ranks"), timeout=_POLL_S)
        except ray.exceptions.GetTimeoutError:
            pass  # busy
        except ray.exceptions.RayActorError as error:
            raise dead(error) from error


def dead(error: Exception) -> MachineError:
    """What to tell of a worker that died."""
    reason = str(error).strip().splitlines()[-1].strip()
    return MachineError(f"Sarathi-Serve's worker died: {reason}; see its log in /tmp/ray")
