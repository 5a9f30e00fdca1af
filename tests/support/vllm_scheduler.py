"""vLLM's own scheduler without a model, on a virtual clock: what it schedules when, as a timeline."""

import copy
import os
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.engine import Composition, ScheduledSeq, Step, Token
from gpu_simulate_test.timeline import Timeline

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

Cost = Callable[[Composition], float]


@dataclass(frozen=True)
class Prompted:
    """A request with its tokens."""

    arrival_ns: int
    token_ids: Sequence[int]
    max_new_tokens: int


@dataclass(frozen=True)
class Batch:
    """What vLLM's scheduler put out, and whose tokens are then all computed: they make one."""

    output: Any
    seqs: list[ScheduledSeq]
    making: set[str]


class Scheduler:
    """vLLM's, for one layer of full attention."""

    def __init__(self, limits: EngineLimits) -> None:
        import torch
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler as SyncScheduler
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
        from vllm.v1.structured_output import StructuredOutputManager

        config = copy.deepcopy(_config())
        config.scheduler_config.max_num_seqs = limits.max_num_seqs
        config.scheduler_config.max_num_batched_tokens = limits.max_num_batched_tokens
        config.scheduler_config.scheduler_reserve_full_isl = limits.reserve_whole_prompt
        config.scheduler_config.watermark = limits.watermark
        config.scheduler_config.async_scheduling = limits.async_scheduling
        config.cache_config.block_size = limits.block_size
        config.cache_config.num_gpu_blocks = limits.num_blocks + 1  # it keeps one for itself
        config.cache_config.enable_prefix_caching = limits.enable_prefix_caching
        spec = FullAttentionSpec(block_size=limits.block_size, num_kv_heads=1, head_size=8, dtype=torch.float32)
        caches = KVCacheConfig(limits.num_blocks + 1, [], [KVCacheGroupSpec(["layer"], spec)])
        kind = AsyncScheduler if limits.async_scheduling else SyncScheduler
        self._theirs = kind(config, caches, StructuredOutputManager(config), limits.block_size)
        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(limits.block_size, sha256)
        self._made = 1_000_000

    def add(self, number: int, request: Prompted) -> None:
        """Let a request wait."""
        from vllm import SamplingParams
        from vllm.v1.request import Request

        params = SamplingParams(max_tokens=request.max_new_tokens, ignore_eos=True)
        self._theirs.add_request(Request(str(number), list(request.token_ids), params, None, block_hasher=self._hasher))

    def has_requests(self) -> bool:
        """Whether it wants to be asked for a batch."""
        return bool(self._theirs.has_requests())

    def schedule(self) -> Batch:
        """The next batch."""
        output = self._theirs.schedule()
        old = output.scheduled_cached_reqs
        cached = {one.req_id: one.num_computed_tokens for one in output.scheduled_new_reqs}
        cached |= dict(zip(old.req_ids, old.num_computed_tokens, strict=True))
        requests = {key: self._theirs.requests[key] for key in output.num_scheduled_tokens}
        seqs = []
        for key, count in output.num_scheduled_tokens.items():
            decodes = requests[key].num_output_tokens > 0 or cached[key] >= requests[key].num_prompt_tokens
            seqs.append(ScheduledSeq(int(key), count, cached[key], is_prefill=count > 1 or not decodes))
        return Batch(output, seqs, {key for key, one in requests.items() if not one.is_prefill_chunk})

    def end_batch(self, batch: Batch) -> list[Token]:
        """Make tokens that no prompt has, and tell the scheduler."""
        from vllm.v1.outputs import ModelRunnerOutput

        keys = list(batch.output.num_scheduled_tokens)
        made = []
        for key in keys:
            self._made += 1
            made.append([self._made] if key in batch.making else [])
        numbers = {key: index for index, key in enumerate(keys)}
        outputs = self._theirs.update_from_output(batch.output, ModelRunnerOutput(keys, numbers, made))
        ones = [one for group in outputs.values() for one in group.outputs]
        return [
            Token(int(one.request_id), token, one.finish_reason is not None)
            for one in ones
            for token in one.new_token_ids
        ]


@cache
def _config() -> Any:
    from transformers import Qwen3Config
    from vllm import EngineArgs

    with tempfile.TemporaryDirectory() as folder:
        Qwen3Config(
            num_hidden_layers=1, hidden_size=8, intermediate_size=8, num_attention_heads=1, num_key_value_heads=1,
            head_dim=8, max_position_embeddings=1 << 20, architectures=["Qwen3ForCausalLM"],
        ).save_pretrained(folder)  # fmt: skip
        return EngineArgs(model=folder, load_format="dummy", skip_tokenizer_init=True).create_engine_config()


def serve_theirs(limits: EngineLimits, requests: Sequence[Prompted], cost: Cost) -> Timeline:
    """Serve requests by vLLM's scheduler and the loop of its engine; batches take what they cost."""
    scheduler, line = Scheduler(limits), Timeline(len(requests))
    queue: deque[tuple[Batch, float, float, list[int]]] = deque()  # batches that run or wait to, from when to when
    depth = 2 if limits.async_scheduling else 1
    now = free = 0.0
    preempted: list[int] = []
    coming = deque(enumerate(requests))
    while True:
        while coming and coming[0][1].arrival_ns / 1e9 <= now:
            scheduler.add(*coming.popleft())
        if scheduler.has_requests():
            batch = scheduler.schedule()
            preempted += map(int, batch.output.preempted_req_ids or ())
            starts = max(now, free)
            if batch.seqs:
                free = starts + cost(Composition.of(batch.seqs)) / 1e9
                queue.append((batch, starts, free, preempted))
                preempted = []
            else:
                queue.append((batch, now, now, []))
            if len(queue) < depth:
                continue
        elif not queue:
            if not coming:
                return line
            now = coming[0][1].arrival_ns / 1e9
            continue
        batch, starts, ends, taken = queue.popleft()
        now = max(now, ends)
        tokens = scheduler.end_batch(batch)
        if batch.seqs:
            line.add_step(Step(round(starts * 1e9), round(ends * 1e9), batch.seqs, tokens, (), taken))
