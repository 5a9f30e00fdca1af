"""What the metrics are called, and what they mean, in every report."""

from gpu_simulate_test.analysis.numbers import count

NAMES = {"ttft": "TTFT", "tbt": "TBT", "tpot": "TPOT", "e2e": "E2E", "e2e_per_token": "E2E / token"}
TITLES = {
    "ttft": "Time to first token (TTFT)",
    "tbt": "Time between tokens (TBT)",
    "tpot": "Time per output token (TPOT)",
    "e2e": "End-to-end latency (E2E)",
    "e2e_per_token": "E2E per output token",
}
DEFINITIONS = (
    "TTFT, time to first token, and E2E, end-to-end latency, count from the scheduled arrival, so the time a request "
    "waits in a queue is part of them.",
    "TBT, time between tokens, is between neighbouring tokens of a request; the first token has none. TPOT, time per "
    "output token, = (completion - first token) / (tokens - 1). E2E / token = E2E / tokens.",
    "P50, P90, P99: what 50, 90, 99 % of them are at most.",
)


def counted(metric: str, n: int) -> str:
    """Say what a metric was taken over, as ``60 requests`` or ``2,304 token gaps``."""
    return count(n, "token gap" if metric == "tbt" else "request")
