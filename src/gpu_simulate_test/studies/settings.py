"""What the jobs of a sweep were given: their overrides as values, and which of them differ."""

from collections.abc import Sequence
from functools import lru_cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

Value = int | float | str

# How much is asked of the deployment; all other settings say what it is.
CONCURRENCY = "workload.arrival.concurrency"
RATE = "workload.arrival.rate_per_s"
LOADS = (CONCURRENCY, RATE, "workload.arrival.inter_arrival_ns", "workload.trace_time_scale")


def settings_of(overrides: Sequence[str]) -> dict[str, Value]:
    """The value of each override by its key, numbers as numbers; of a key that is there twice, the last.

    A quoted value is what is in the quotes; ``key`` of ``+key=value`` and ``++key=value``; what is deleted has an
    empty value under ``~key``.
    """
    return dict(map(_parsed, overrides))


@lru_cache(maxsize=4096)  # jobs of a sweep have most of theirs in common
def _parsed(text: str) -> tuple[str, Value]:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:  # a job of it is an error, and its text all that is known
        key, _, typed = text.partition("=")
        return key, typed
    key = override.key_or_group if override.package is None else f"{override.key_or_group}@{override.package}"
    if override.is_delete():
        return f"~{key}", str(override.value() or "")
    value = override.value()
    if isinstance(value, bool):
        return key, str(value).lower()
    if isinstance(value, int | float | str):
        return key, value
    return key, "null" if value is None else override.get_value_element_as_str(space_after_sep=True)


def swept(jobs: Sequence[dict[str, Value]]) -> list[str]:
    """Keys whose value is not the same in all jobs, in the order in which they first occur."""
    keys = dict.fromkeys(key for job in jobs for key in job)
    return [key for key in keys if len({repr(job.get(key)) for job in jobs}) > 1]


def load_key(keys: Sequence[str]) -> str | None:
    """Which of the keys says how much is asked of the deployment; None where none does."""
    return next((key for key in LOADS if key in keys), None)


def shortened(keys: Sequence[str]) -> dict[str, str]:
    """Each key by its last part, or by as many of its last parts as tell it from the others."""
    names = {}
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        names[key] = next(
            (tail for tail in tails if not any(other != key and f".{other}".endswith(f".{tail}") for other in keys)),
            key,
        )
    return names
