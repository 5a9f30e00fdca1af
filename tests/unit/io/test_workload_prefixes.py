"""Requests that share tokens have equal token ids, and equal keys of their blocks."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io import workload_prefixes
from gpu_simulate_test.io.workload import PROMPTS, dump_prompts, read_prompts, token_ids
from gpu_simulate_test.io.workload_prefixes import cached_tokens, keys_of

Prompt = dict[str, Any]


def write(folder: Path, prompts: Sequence[Prompt]) -> Path:
    path = folder / PROMPTS
    path.write_text("".join(dump_prompts(prompts)), encoding="utf-8")
    return path


def random_prompt(number: int, own: int, *shared: tuple[str, int], vocab_size: int = 4096, seed: int = 0) -> Prompt:
    count = own + sum(tokens for _, tokens in shared)
    spec: dict[str, Any] = {"count": count, "seed": seed, "vocab_size": vocab_size}
    if shared:
        spec["shared"] = [list(one) for one in shared]
    return {"prompt_id": f"synthetic-{number}", "text": "", "random_tokens": spec}


def by_tokens(prompts: Sequence[Prompt], size: int) -> list[list[tuple[int, ...]]]:
    """What the keys stand for, found by comparing all tokens."""
    ids = [token_ids(prompt) or [] for prompt in prompts]
    starts = [[tuple(one[:end]) for end in range(size, len(one) + 1, size)] for one in ids]
    users = Counter(start for one in starts for start in one)
    return [[start for start in one if users[start] > 1] for one in starts]


SEGMENT = st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 40))
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=40)
RANDOM = st.tuples(st.integers(0, 40), st.lists(SEGMENT, max_size=4)).filter(lambda one: one[0] or one[1])


@given(
    st.lists(st.one_of(RANDOM, RANDOM, TOKENS), min_size=1, max_size=12),
    st.sampled_from([4, 5, 7, 300, 100_000]),
    st.integers(1, 20),
)
def test_two_keys_are_equal_if_and_only_if_all_tokens_up_to_them_are(
    drawn: Sequence[Any], vocab_size: int, size: int
) -> None:
    prompts = [
        {"prompt_id": f"text-{number}", "text": "", "token_ids": one}
        if isinstance(one, list)
        else random_prompt(number, one[0], *one[1], vocab_size=vocab_size)
        for number, one in enumerate(drawn)
    ]
    with TemporaryDirectory() as folder:
        keys = keys_of(write(Path(folder), prompts), len(prompts), size)
    expected = by_tokens(prompts, size)
    assert [len(one) for one in keys] == [len(one) for one in expected]
    meant = {key: start for own, starts in zip(keys, expected, strict=True) for key, start in zip(own, starts)}  # noqa: B905
    pairs = {(key, start) for own, starts in zip(keys, expected, strict=True) for key, start in zip(own, starts)}  # noqa: B905
    assert len(pairs) == len(meant) == len(set(meant.values()))


def test_no_token_is_drawn_where_the_parts_tell_what_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [random_prompt(number, 30, (f"prefix-{number % 2}", 512)) for number in range(6)]
    prompts.append(random_prompt(6, 0, ("prefix-0", 100)))
    monkeypatch.setattr(workload_prefixes, "random_token_ids", lambda *_: pytest.fail("drawn"))
    keys = keys_of(write(tmp_path, prompts), 7, 16)
    assert [len(one) for one in keys] == [32] * 6 + [6]
    assert keys[0] == keys[2] == keys[4] != keys[1] == keys[3] == keys[5]
    assert list(keys[6]) == list(keys[0])[:6]


def test_a_workload_that_shares_nothing_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [random_prompt(number, 100) for number in range(5)])
    monkeypatch.setattr(workload_prefixes, "_texts", lambda *_: pytest.fail("parsed"))
    assert list(map(list, keys_of(path, 5, 16))) == [[]] * 5


def test_a_cache_has_what_earlier_requests_began_with_but_never_a_whole_prompt(tmp_path: Path) -> None:
    prompts = [
        random_prompt(0, 0, ("a", 64)),
        random_prompt(1, 0, ("a", 64)),
        random_prompt(2, 5, ("a", 64)),
        random_prompt(3, 90, ("a", 20)),
        random_prompt(4, 99),
    ]
    keys = keys_of(write(tmp_path, prompts), 5, 16)
    assert cached_tokens(keys, [64, 64, 69, 110, 99], 16).tolist() == [0, 48, 64, 16, 0]


def test_what_is_shared_follows_from_its_name_and_the_seed_alone() -> None:
    short, long = (token_ids(random_prompt(number, number, ("a", 10 * number))) for number in (1, 2))
    assert short is not None
    assert long is not None
    assert short[:10] == long[:10]
    assert token_ids(random_prompt(1, 1, ("b", 10))) != short
    assert token_ids(random_prompt(1, 1, ("a", 10), seed=1)) != short
    assert short[10:] == (token_ids(random_prompt(1, 1)) or [])
    assert short[:6] == [666, 3318, 1319, 38, 3672, 2306]  # as when this was written


@pytest.mark.parametrize("shared", [None, {"a": 3}, [["a"]], [["a", 0]], [["a", 2.0]], [[1, 2]], [["a", 2], ["b", 2]]])
def test_a_beginning_that_is_none_is_refused_by_its_line(tmp_path: Path, shared: Any) -> None:
    prompt = random_prompt(0, 3)
    prompt["random_tokens"]["shared"] = shared
    with pytest.raises(ConfigError, match=r"line 1: random_tokens must be .*of at most count tokens, shared"):
        list(read_prompts(write(tmp_path, [prompt])))
