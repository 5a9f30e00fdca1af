"""On a CPU, the page faults of an engine's buffers would take up to half of a step, by what was allocated before."""

import subprocess
import sys

_CHURN = """
import resource, sys
import torch

if sys.argv[1] == "prepared":
    from gpu_simulate_test.real_bench.backends.model import prepare_device
    from tests.support.configs import typed_config

    prepare_device(typed_config("real_bench", "experiment=cpu_demo").hardware)

def churn():
    for _ in range(4):
        buffers = [torch.ones(10_000_000) for _ in range(3)]  # above 32 MiB malloc always asks the system

for _ in range(3):  # until the heap is as large as it gets
    churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", _CHURN, mode], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def test_buffers_of_an_engine_on_a_cpu_come_without_page_faults() -> None:
    assert page_faults("prepared") < page_faults("plain") / 20
