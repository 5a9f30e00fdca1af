"""Vidur's own random forests on our operator tables, for comparison with ours."""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
from vidur.config.config import CacheConfig, RandomForrestExecutionTimePredictorConfig, ReplicaConfig
from vidur.entities.batch import Batch
from vidur.execution_time_predictor.random_forrest_execution_time_predictor import RandomForrestExecutionTimePredictor

from gpu_simulate_test.engine import Composition
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.io.profile_tables import ATTENTION, MLP
from gpu_simulate_test.io.progress import progress
from gpu_simulate_test.io.tables import write_table
from gpu_simulate_test.latency.operators import ALL_REDUCES, COMPUTE_OPS, times_of
from gpu_simulate_test.profiles.bundle import Profile
from gpu_simulate_test.vidur_ext.vidur_config import SimSettings, cache_config, replica_config

log = logging.getLogger(__name__)

_NUM_FORESTS = len(COMPUTE_OPS) + 3  # prefill and decode attention, KV-cache save; all-reduce, with several GPUs
_ALL_REDUCE = "all_reduce.csv"
_KV_STEP, _CHUNK_STEP = 256, 32  # what Vidur rounds contexts and prefill chunks up to


class StockPredictor(RandomForrestExecutionTimePredictor):
    """Vidur's predictor, reading `tables` instead of a model hub, its forests seeded.

    Everything else is Vidur's: what is trained and how, what a batch is looked up at, what is added up.
    """

    def __init__(
        self,
        tables: Path,
        predictor_config: RandomForrestExecutionTimePredictorConfig,
        replica: ReplicaConfig,
        cache: CacheConfig,
    ) -> None:
        self._tables = tables
        self._seen: Any = None
        forests = _NUM_FORESTS + (replica.tensor_parallel_size > 1)
        with progress("vidur-sim training", forests, "operators") as self._bar:
            super().__init__(predictor_config, replica, cache)

    def _get_input_files(self) -> tuple[str, str, str, str]:
        names = (MLP.filename, ATTENTION.filename, _ALL_REDUCE, "")  # one stage: nothing is sent to a next one
        return cast(tuple[str, str, str, str], tuple(str(self._tables / name) for name in names))

    def _load_predictions_from_hf(self) -> Any:
        return self._predict_from_models(self._train_models())  # what Vidur does when the hub has none

    def _get_estimator(self) -> Any:
        return super()._get_estimator().set_params(random_state=0)

    def _train_model(self, **arguments: Any) -> Any:
        model = super()._train_model(**arguments)
        self._bar.update()
        return model

    def look_at(self, vidur_batch: Any) -> None:
        """Take Vidur's own object of the next batch, which says more than its composition."""
        self._seen = vidur_batch

    def step_ns(self, batch: Composition, now_ns: float) -> float:
        """How long a batch takes, ns: by Vidur's own object if it was seen, else by a `stand_in`."""
        seen, self._seen = self._seen, None
        return float(self.get_execution_time(stand_in(batch) if seen is None else seen, 0).total_time * 1e9)

    def decode_run_ns(self, batch: Composition, count: int) -> None:
        """None: Vidur looks its batches up one by one."""


def stand_in(batch: Composition) -> Batch:
    """A Vidur batch of the same composition, all prefilling and all decoding sequences of mean length.

    For the iterations of a real run, of which only the compositions are known. Prefill attention is not
    linear in the lengths, so a batch of unequal prompts gets another time than its own Vidur batch would.
    """
    queries, contexts = [], []
    if prompts := batch.num_prefill_seqs:
        chunk, longer = divmod(batch.num_prefill_tokens, prompts)
        queries = [chunk + 1] * longer + [chunk] * (prompts - longer)
        contexts = [batch.kv_tokens_prefill // prompts + count for count in queries]
    if decoding := batch.num_decode_seqs:
        queries += [1] * decoding
        # Vidur counts the newest token as processed before its keys and values are written, hence 2.
        contexts += [batch.kv_tokens_decode // decoding + 2] * decoding
    return Batch(0, [None] * len(queries), queries, contexts)


def train_stock(profile: Profile, settings: SimSettings, longest: int, **grid: Any) -> StockPredictor:
    """Train Vidur's predictor on `profile`; with Vidur's own grid this takes minutes.

    Parameters
    ----------
    settings : SimSettings
        Its limits, and `longest`, bound the table of predictions that Vidur fills in advance.
    longest : int
        Tokens of the longest request, prompt and output.
    **grid
        Fields of Vidur's predictor config, over its defaults.

    Raises
    ------
    ConfigError
        There is a pipeline.
    """
    if settings.limits.pipeline_parallel > 1:
        raise ConfigError(
            f"limits.pipeline_parallel={settings.limits.pipeline_parallel}: vidur/predictor=stock is trained on one "
            "stage; take operators_only"
        )
    logging.getLogger("vidur").setLevel(logging.WARNING)  # it logs to stdout
    log.info("training Vidur's random forests on %s: this takes minutes", profile.path)
    limits = settings.limits
    # Orca puts whole prompts together, whatever the token budget.
    tokens = max(limits.max_num_batched_tokens, limits.max_num_seqs * (longest if settings.scheduler == "orca" else 1))
    replica = replace(replica_config(settings), tensor_parallel_size=limits.tensor_parallel)
    with tempfile.TemporaryDirectory(prefix="gsim-stock-") as scratch:  # it stores models even with no_cache
        _write_tables(profile, replica, limits.block_size, Path(scratch))
        config = RandomForrestExecutionTimePredictorConfig(
            no_cache=True,
            cache_dir=scratch,
            kv_cache_prediction_granularity=_KV_STEP,
            prediction_max_prefill_chunk_size=_rounded_up(longest, _CHUNK_STEP),
            prediction_max_batch_size=limits.max_num_seqs,
            prediction_max_tokens_per_request=_rounded_up(max(longest, tokens), _KV_STEP),
            **grid,
        )
        return StockPredictor(Path(scratch), config, replica, cache_config(settings))


def _write_tables(profile: Profile, replica: ReplicaConfig, block_size: int, path: Path) -> None:
    """Copy the tables, and say in the columns that Vidur selects by what the profile's identity says.

    A profile that was recorded elsewhere has no such columns.
    """
    model, degree = replica.model_config, replica.tensor_parallel_size
    both = {"n_embd": model.embedding_dim, "n_kv_head": model.num_kv_heads, "num_tensor_parallel_workers": degree}
    of_mlp = {
        "n_head": model.num_q_heads,
        "n_expanded_embd": model.mlp_hidden_dim,
        "use_gated_mlp": model.use_gated_mlp,
        "vocab_size": model.vocab_size,
    }
    of_attention = {"n_q_head": model.num_q_heads, "block_size": block_size}
    assert profile.mlp is not None and profile.attention is not None
    write_table(path, MLP, profile.mlp.assign(**both, **of_mlp))
    write_table(path, ATTENTION, profile.attention.assign(**both, **of_attention))
    if degree > 1:  # Vidur takes one for each half of a layer
        sizes = {"size": profile.mlp["num_tokens"] * 2 * model.embedding_dim, "num_workers": degree}
        times = {"devices_per_node": degree, times_of("all_reduce"): profile.mlp[times_of(ALL_REDUCES)] / 2}
        pd.DataFrame({**sizes, **times, "collective": "all_reduce"}).to_csv(path / _ALL_REDUCE, index=False)


def _rounded_up(value: int, step: int) -> int:
    return -(-value // step) * step
