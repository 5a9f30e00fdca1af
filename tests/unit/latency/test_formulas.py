"""The models are quick forms of plain formulas: here are the formulas, and they agree to the last digits."""

from math import log, sqrt
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_simulate_test.engine import Composition, ScheduledSeq
from gpu_simulate_test.latency.grid import Grid
from gpu_simulate_test.latency.iterations import IterationModel, Quantities, fit_iterations
from gpu_simulate_test.latency.kernels import KernelModel, Kernels
from gpu_simulate_test.latency.model import LatencyModel
from gpu_simulate_test.latency.operators import COMPUTE_OPS, OperatorModel
from gpu_simulate_test.profiles.llmservingsim import read_recorded_profile
from tests.unit.latency.test_predictor import measure, operator_model
from tests.unit.profiles.test_recorded import LAYERS, RTX, write_profile

SEQS = st.lists(st.tuples(st.integers(1, 900), st.integers(0, 9000), st.booleans()), min_size=1, max_size=40)


class Tables(NamedTuple):
    mlp: pd.DataFrame
    attention: pd.DataFrame
    kernels: Kernels


def batch_of(seqs: list[tuple[int, int, bool]]) -> Composition:
    """Of prompts, ``(tokens, cached, True)``, and decoding sequences, ``(_, cached, False)``."""
    return Composition.of(
        [
            ScheduledSeq(number, tokens if prompt else 1, cached + (not prompt), prompt)
            for number, (tokens, cached, prompt) in enumerate(seqs)
        ]
    )


@pytest.fixture(scope="module", params=["made up", "RTX PRO 6000"])
def tables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    if request.param == "made up":
        return Tables(*read_recorded_profile(write_profile(tmp_path_factory.mktemp("kernels") / "profile")))
    if not RTX.is_dir():
        pytest.skip(f"the public GPU run is not here: {RTX}")
    return Tables(*read_recorded_profile(RTX / "profile"))


class PlainOperators:
    """All layers' operators, sequences at their mean length and context."""

    def __init__(self, tables: Tables) -> None:
        per_layer = tables.mlp[[f"time_stats.{op}.median" for op in COMPUTE_OPS]].sum(axis=1)
        self.compute = Grid(tables.mlp.assign(ms=per_layer), ["num_tokens"], "ms")
        prompts = tables.attention["prefill_chunk_size"] > 0
        prefill, decode = tables.attention[prompts], tables.attention[~prompts]
        self.prefill = Grid(prefill, ["prefill_chunk_size", "kv_cache_size"], "time_stats.attn_prefill.median")
        self.decode = Grid(decode, ["batch_size", "kv_cache_size"], "time_stats.attn_decode.median")

    def __call__(self, batch: Composition) -> float:
        time = self.compute(batch.num_prefill_tokens + batch.num_decode_seqs)
        if prompts := batch.num_prefill_seqs:
            time += prompts * self.prefill(batch.num_prefill_tokens / prompts, batch.kv_tokens_prefill / prompts)
        if decoding := batch.num_decode_seqs:
            time += self.decode(decoding, batch.kv_tokens_decode / decoding)
        return 1e6 * LAYERS * time


class PlainKernels:
    """All layers' operators but attention, attention of one launch, and what runs once."""

    def __init__(self, tables: Tables) -> None:
        self.compute = PlainOperators(tables).compute
        kernels = tables.kernels
        self.once = [
            Grid(self.summed(table, size), [size], "ms")
            for table, size in ((kernels.per_token, "num_tokens"), (kernels.per_sequence, "num_seqs"))
        ]
        chunk, decoding = (kernels.attention[name] > 0 for name in ("prefill_chunk_size", "batch_size"))
        axes = ["prefill_chunk_size", "prefill_kv", "batch_size", "decode_kv"]
        self.mixed = Grid(kernels.attention[chunk & decoding], axes, "median_ms")
        self.prefill = Grid(kernels.attention[chunk & ~decoding], axes[:2], "median_ms")
        self.decode = Grid(kernels.attention[~chunk & decoding], axes[2:], "median_ms")
        skew = kernels.skew.assign(w=kernels.skew["mean_ms"] ** -2.0)
        skew["y"], skew["x"] = skew["skewed_ms"] - skew["mean_ms"], skew["longest_ms"] - skew["mean_ms"]
        skew = skew.assign(xy=skew["w"] * skew["x"] * skew["y"], xx=skew["w"] * skew["x"] ** 2)
        sums = skew.groupby(["prefill_chunk_size", "batch_size"])[["xy", "xx"]].sum()
        self.share = (sums["xy"] / sums["xx"]).clip(0, 1).unstack()

    @staticmethod
    def summed(table: pd.DataFrame, size: str) -> pd.DataFrame:
        return table.groupby(size)["median_ms"].sum().rename("ms").reset_index()

    def one_chunk(self, batch: Composition) -> tuple[float, float]:
        """As many queries and causal pairs as all chunks have."""
        queries, prompts = batch.num_prefill_tokens, batch.num_prefill_seqs
        squares = batch.prefill_pairs - queries * batch.kv_tokens_prefill / prompts
        pairs = batch.prefill_pairs - float(np.clip(squares, queries**2 / prompts, queries**2)) / 2
        cached = pairs / queries - queries / 2
        return (queries, cached) if cached >= 0 else (sqrt(2 * pairs), 0.0)

    def skewed(self, chunk: float, decoding: int) -> float:
        by_chunk = [np.interp(log(decoding), np.log(self.share.columns), row) for row in self.share.to_numpy()]
        if not chunk:
            return by_chunk[0]
        return float(np.interp(log(chunk), np.log(self.share.index[1:]), by_chunk[1:]))

    def __call__(self, batch: Composition) -> float:
        decoding = batch.num_decode_seqs
        chunk, cached = self.one_chunk(batch) if batch.num_prefill_seqs else (0.0, 0.0)
        attention = self.prefill(chunk, cached) if not decoding else 0.0
        if decoding:
            equal, longest = (
                self.mixed(chunk, cached, decoding, context) if chunk else self.decode(decoding, context)
                for context in (batch.kv_tokens_decode / decoding, batch.max_kv_decode)
            )
            attention = equal + self.skewed(chunk, decoding) * (longest - equal)
        tokens, seqs = batch.num_prefill_tokens + decoding, batch.num_prefill_seqs + decoding
        return 1e6 * (LAYERS * (self.compute(tokens) + attention) + self.once[0](tokens) + self.once[1](seqs))


@pytest.fixture(scope="module")
def operators(tables: Tables) -> tuple[OperatorModel, PlainOperators]:
    return OperatorModel(tables.mlp, tables.attention, LAYERS), PlainOperators(tables)


@pytest.fixture(scope="module")
def kernels(tables: Tables, operators: tuple[OperatorModel, PlainOperators]) -> tuple[KernelModel, PlainKernels]:
    return KernelModel(operators[0], tables.kernels, LAYERS), PlainKernels(tables)


@pytest.fixture(scope="module")
def iterations() -> IterationModel:
    return fit_iterations(measure(range(3)), operator_model())


@settings(max_examples=50, deadline=None)
@given(seqs=SEQS)
def test_operators(operators: tuple[OperatorModel, PlainOperators], seqs: list[tuple[int, int, bool]]) -> None:
    fast, plain = operators
    batch = batch_of(seqs)
    assert fast.step_ns(batch, 0.0) == pytest.approx(plain(batch), rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(seqs=SEQS)
def test_kernels(kernels: tuple[KernelModel, PlainKernels], seqs: list[tuple[int, int, bool]]) -> None:
    fast, plain = kernels
    batch = batch_of(seqs)
    assert fast.step_ns(batch, 0.0) == pytest.approx(plain(batch), rel=1e-12)


OPERATORS = operator_model()


@settings(max_examples=100, deadline=None)
@given(seqs=SEQS)
def test_iterations(iterations: IterationModel, seqs: list[tuple[int, int, bool]]) -> None:
    """The sum over ramps of how far a quantity has climbed them."""
    batch = batch_of(seqs)
    quantities = Quantities.of(batch, OPERATORS.step_ns(batch, 0.0))._asdict()
    climbed = [slope * (min(max(quantities[name], start), end) - start) for name, start, end, slope in iterations.ramps]
    assert iterations.step_ns(batch, 0.0) == pytest.approx(sum(climbed), rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(seqs=SEQS, more=st.integers(1, 400))
def test_longer_contexts_never_take_less(
    kernels: tuple[KernelModel, PlainKernels], seqs: list[tuple[int, int, bool]], more: int
) -> None:
    models: tuple[LatencyModel, ...] = (kernels[0], OPERATORS)
    longer = [(tokens, cached + more, prompt) for tokens, cached, prompt in seqs]
    for model in models:
        assert model.step_ns(batch_of(seqs), 0.0) <= model.step_ns(batch_of(longer), 0.0) * (1 + 1e-12)
