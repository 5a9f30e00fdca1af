"""The workload artifact: three data files, their hash, and the checks between them."""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gpu_simulate_test.arrivals import ArrivalProcess
from gpu_simulate_test.config.ids import file_sha256, stable_id
from gpu_simulate_test.config.schema import StageConfig
from gpu_simulate_test.errors import ArtifactError, ConfigError
from gpu_simulate_test.io.files import check_regular
from gpu_simulate_test.io.run_dir import WORKLOAD_META, read_run_meta
from gpu_simulate_test.io.tables import TRACE_INTERVALS, TRACE_LENGTHS, read_table

PROMPTS = "prompts.jsonl"
DATA_FILES = (TRACE_LENGTHS.filename, TRACE_INTERVALS.filename, PROMPTS)

Segments = Sequence[tuple[str, int]]  # name and number of tokens of what prompts share

_FIRST_PLAIN_TOKEN = 3  # below it lie special tokens in common vocabularies


@dataclass(frozen=True)
class Workload:
    """A finished workload.

    Attributes
    ----------
    lengths : pandas.DataFrame
        ``trace_lengths.csv``, one row a request, ids 0..N-1 in order.
    arrivals : ArrivalProcess
        ``trace_intervals.csv``.
    """

    path: Path
    meta: dict[str, Any]
    lengths: pd.DataFrame
    arrivals: ArrivalProcess

    @property
    def sha256(self) -> str:
        """Hash of the three data files."""
        return str(self.meta["workload_sha256"])

    def record(self) -> dict[str, Any]:
        """What a run that served it says of it."""
        closed_loop = not self.arrivals.is_open
        return {"workload_dir": str(self.path.absolute()), "workload_sha256": self.sha256, "closed_loop": closed_loop}

    def __len__(self) -> int:
        return len(self.lengths)


def workload_path(config: StageConfig) -> Path:
    """The workload directory that the settings name, whether it exists or not.

    Every stage finds the workload by this path, so nobody has to type it.

    Raises
    ------
    ConfigError
        The prompts file cannot be read.
    """
    if config.workload.workload_dir is not None:
        return Path(config.workload.workload_dir)
    identity = config.workload.model_dump()
    del identity["workload_dir"]
    if config.workload.prefix.num_tokens is None:
        del identity["prefix"]
    if config.workload.arrival.kind != "closed_loop" and not config.workload.sessions:
        for key in ("concurrency", "think_time_s", "ramp_s"):
            del identity["arrival"][key]
        del identity["sessions"]
    for key in ("prompts", "trace"):
        if config.workload.source == key:
            file = identity[key]
            try:
                check_regular(Path(file))
                identity[key] = file_sha256(Path(file))
            except OSError as error:
                raise ConfigError(f"cannot read {key}: {file}: {error.strerror}") from error
    keys = ["id", "tokenizer", "vocab_size"]
    if config.workload.source == "trace":
        keys.append("max_position_embeddings")  # a longer request is left out
    model = {key: getattr(config.model, key) for key in keys}
    workload_id = stable_id("workload", {"workload": identity, "model": model})
    return Path(config.output.root) / "workloads" / workload_id


def workload_sha256(path: Path) -> str:
    """SHA-256 over the two CSVs and the prompts, each preceded by its name and size."""
    digest = hashlib.sha256()
    for name in DATA_FILES:
        with (path / name).open("rb") as stream:
            digest.update(f"{name}\0{stream.seek(0, 2)}\0".encode())
            stream.seek(0)
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def load_workload(path: Path, model_id: str) -> Workload:
    """Read a finished workload and check that its files agree and are meant for `model_id`.

    Raises
    ------
    ArtifactError
        Incomplete, malformed, inconsistent, changed since it was made, or another model's.
    """
    meta = read_run_meta(path, WORKLOAD_META)
    if meta.get("model") != model_id:
        raise ArtifactError(f"workload of another model: {path}: made for {meta.get('model')}, not {model_id}")
    lengths = read_table(path, TRACE_LENGTHS)
    intervals = read_table(path, TRACE_INTERVALS)
    ids = np.arange(len(lengths))
    if not np.array_equal(lengths["request_id"], ids):
        raise ArtifactError(f"request ids are not 0..N-1: {path / TRACE_LENGTHS.filename}; run workload-spec again")
    if not np.array_equal(intervals["request_id"], ids):
        raise ArtifactError(
            f"CSVs disagree: {path}: {len(lengths)} requests in {TRACE_LENGTHS.filename}, "
            f"{len(intervals)} in {TRACE_INTERVALS.filename}; run workload-spec again"
        )
    arrivals = _arrivals(intervals, path / TRACE_INTERVALS.filename)
    if (lengths[["num_prefill_tokens", "num_decode_tokens"]] < 1).any(axis=None):
        raise ArtifactError(f"a token count is below 1: {path / TRACE_LENGTHS.filename}")
    try:
        actual = workload_sha256(path)
    except OSError as error:
        raise ArtifactError(f"cannot read: {path}: {error}; run workload-spec again") from error
    if actual != meta.get("workload_sha256"):
        raise ArtifactError(f"data files changed since they were made: {path}; run workload-spec again")
    return Workload(path, meta, lengths, arrivals)


def _arrivals(intervals: pd.DataFrame, file: Path) -> ArrivalProcess:
    size = len(intervals)
    names = ("inter_arrival_ns", "arrival_time_ns", "follows_request_id", "delay_ns")
    missing = pd.Series(pd.NA, index=intervals.index, dtype="Int64")
    gaps, known, follows, delay = (intervals.get(name, missing).to_numpy(dtype=np.int64, na_value=-1) for name in names)
    given = known >= 0
    if not np.array_equal(np.cumsum(gaps[given]), known[given]) or (gaps[given] < 0).any():
        raise ArtifactError(f"arrival_time_ns is not the sum of inter_arrival_ns: {file}")
    after = follows[follows >= 0]
    alone = len(np.unique(after)) == len(after)
    if (follows >= np.arange(size)).any() or (given & (follows >= 0)).any() or not alone or not given[:1].all():
        raise ArtifactError(f"follows_request_id must be of an earlier request, and of no other: {file}")
    return ArrivalProcess(known, follows, np.maximum(delay, 0))


def read_prompts(path: Path) -> Iterator[dict[str, Any]]:
    """Prompts of a JSONL file, one object a line, checked as they are read.

    Raises
    ------
    ConfigError
        The file is missing, or a line is malformed; the line number is named.
    """
    try:
        stream = path.open(encoding="utf-8", newline="\n")
    except OSError as error:
        raise ConfigError(f"cannot read prompts: {path}: {error.strerror}") from error
    seen: set[str] = set()
    with stream:
        try:
            for number, line in enumerate(stream, start=1):
                yield _checked_prompt(line, f"{path}, line {number}", seen)
        except UnicodeDecodeError as error:
            raise ConfigError(f"prompts are not UTF-8: {path}: {error}") from error
    if not seen:
        raise ConfigError(f"no prompts: {path}")


def _checked_prompt(line: str, where: str, seen: set[str]) -> dict[str, Any]:
    try:
        prompt = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"malformed prompt: {where}: {error}") from error
    if "\\ud" in line.lower():  # an escape can make half of a surrogate pair, which no file can hold
        try:
            json.dumps(prompt, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"malformed prompt: {where}: half of a surrogate pair: {error.reason}") from error
    if not isinstance(prompt, dict) or not isinstance(prompt.get("prompt_id"), str):
        raise ConfigError(f"malformed prompt: {where}: prompt_id must be a string")
    if prompt["prompt_id"] in seen:
        raise ConfigError(f"malformed prompt: {where}: prompt_id {prompt['prompt_id']!r} is not unique")
    seen.add(prompt["prompt_id"])
    ids = prompt.get("token_ids")
    if ids is not None and not (isinstance(ids, list) and all(type(i) is int and i >= 0 for i in ids)):
        raise ConfigError(f"malformed prompt: {where}: token_ids must be a list of integers >= 0")
    if not isinstance(prompt.get("text"), str):
        raise ConfigError(f"malformed prompt: {where}: text must be a string")
    random_tokens = prompt.get("random_tokens")
    if random_tokens is not None and not _is_random_tokens(random_tokens):
        raise ConfigError(
            f"malformed prompt: {where}: random_tokens must be count >= 1, seed, vocab_size and, of at most count "
            "tokens, shared"
        )
    if not prompt["text"] and not ids and random_tokens is None:
        raise ConfigError(f"malformed prompt: {where}: neither text nor token_ids")
    return prompt


def _is_random_tokens(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() - {"shared"} == {"count", "seed", "vocab_size"}
        and all(type(number) is int for key, number in value.items() if key != "shared")
        and value["count"] >= 1
        and value["vocab_size"] > _FIRST_PLAIN_TOKEN
        and _is_shared(value.get("shared", []), value["count"])
    )


def _is_shared(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(one, list) and [type(part) for part in one] == [str, int] and one[1] >= 1 for one in value)
        and sum(number for _, number in value) <= count
    )


def token_ids(prompt: dict[str, Any]) -> list[int] | None:
    """Token ids of a prompt: those it has, or those that follow from its ``random_tokens``; None for a text alone."""
    ids: list[int] | None = prompt.get("token_ids")
    if ids is not None or "random_tokens" not in prompt:
        return ids
    vocab_size = prompt["random_tokens"]["vocab_size"]
    return [token for seed, count in random_parts(prompt) for token in random_token_ids(seed, count, vocab_size)]


def random_parts(prompt: dict[str, Any]) -> list[tuple[str, int]]:
    """Seeds of the parts of a prompt with ``random_tokens``, and tokens of each; see `random_token_ids`.

    First what it shares with others, by the name of that, then its own. Neither needs another prompt.
    """
    spec = prompt["random_tokens"]
    shared = [(f"shared-{spec['seed']}-{name}", count) for name, count in spec.get("shared", ())]
    own = spec["count"] - sum(count for _, count in shared)
    return [*shared, (f"tokens-{spec['seed']}-{prompt['prompt_id']}", own)] if own else shared


def plain_tokens(vocab_size: int) -> int:
    """How many tokens of a vocabulary are drawn from."""
    return vocab_size - _FIRST_PLAIN_TOKEN


def random_token_ids(seed: str, count: int, vocab_size: int) -> list[int]:
    """Plain tokens, uniform: draws of Python's ``random.Random`` of that seed, fewer of one the first of more."""
    uniform = random.Random(seed).random
    span = plain_tokens(vocab_size)
    return [_FIRST_PLAIN_TOKEN + int(uniform() * span) for _ in range(count)]


def dump_prompts(prompts: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Prompts as lines of JSONL, keys in their given order."""
    return (json.dumps(prompt, ensure_ascii=False, separators=(",", ":")) + "\n" for prompt in prompts)


def dump_random_prompts(
    prompt_ids: Iterable[str],
    counts: Iterable[int],
    seed: int,
    vocab_size: int,
    shared: Iterable[Segments] | None = None,
) -> Iterator[str]:
    """Lines of prompts of seeded random tokens; the ids, plain ASCII, are not stored: `token_ids` makes them.

    Formatted, not encoded, for a million of them would take as long as all the rest.

    Parameters
    ----------
    shared : iterable of sequence of (str, int), optional
        What each begins with: the name of a text that others begin with as well, and how many tokens of it.
    """
    tail = f',"seed":{seed},"vocab_size":{vocab_size}'
    for prompt_id, count, segments in zip(prompt_ids, counts, shared or repeat(()), strict=False):
        more = _dumped(tuple(segments)) if segments else ""
        yield f'{{"prompt_id":"{prompt_id}","text":"","random_tokens":{{"count":{count}{tail}{more}}}}}\n'


@lru_cache(maxsize=4096)
def _dumped(segments: Segments) -> str:
    return f',"shared":{json.dumps(segments, ensure_ascii=False, separators=(",", ":"))}'
