"""Single operators of a loaded transformers model, called as its own forward pass calls them."""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

from gpu_simulate_test.engine import Clock


def block_size(cache: Any) -> int:
    """Tokens in a block of the engine's KV cache."""
    if hasattr(cache, "cache_allocators"):
        return int(next(iter(cache.cache_allocators.values())).tokens_per_page)
    return int(cache.block_size)  # up to 5.17


class TransformersOperators:
    """The operators protocol over a Qwen3's layers.

    Each call goes to the next layer, as in a forward pass: a layer's weights are then as cold in the
    caches as they are in service.
    """

    def __init__(self, model: Any, cache: Any, attn_implementation: str, clock: Clock) -> None:
        self._config = model.config
        self._layers = list(model.model.layers)
        self._rotary = model.model.rotary_emb
        self._cache = cache
        self._attend = ALL_ATTENTION_FUNCTIONS[attn_implementation]
        self._clock = clock
        self._device = model.device
        self._dtype = model.dtype

    def compute(self, name: str, num_tokens: int) -> Callable[[], object]:
        """An operator over `num_tokens` tokens; names are Vidur's columns."""
        hidden = self._random(1, num_tokens, self._config.hidden_size)
        layers = cycle(self._layers)
        return {
            "input_layernorm": self._norm,
            "post_attention_layernorm": self._norm,
            "attn_pre_proj": self._pre_proj,
            "attn_rope": self._rope,
            "attn_post_proj": self._post_proj,
            "mlp_up_proj": self._up_proj,
            "mlp_act": self._act,
            "mlp_down_proj": self._down_proj,
            "add": self._add,
        }[name](hidden, layers)

    def _norm(self, hidden: Any, layers: Iterator[Any]) -> Callable[[], object]:
        return lambda: next(layers).input_layernorm(hidden)

    def _pre_proj(self, hidden: Any, layers: Iterator[Any]) -> Callable[[], object]:
        shape = (1, hidden.shape[1], -1, self._config.head_dim)

        def call() -> object:  # Qwen3's q and k norms, which others lack, belong to it: Vidur has no operator for them
            attention = next(layers).self_attn
            query, key = attention.q_proj(hidden).view(shape), attention.k_proj(hidden).view(shape)
            if hasattr(attention, "q_norm"):
                query, key = attention.q_norm(query), attention.k_norm(key)
            return query.transpose(1, 2), key.transpose(1, 2), attention.v_proj(hidden).view(shape).transpose(1, 2)

        return call

    def _rope(self, hidden: Any, layers: Iterator[Any]) -> Callable[[], object]:
        query, key = self._query(hidden.shape[1]), self._key(hidden.shape[1])
        positions = torch.arange(hidden.shape[1], device=self._device).unsqueeze(0)
        cos, sin = self._rotary(hidden, positions)
        return lambda: apply_rotary_pos_emb(query, key, cos, sin)

    def _post_proj(self, hidden: Any, layers: Iterator[Any]) -> Callable[[], object]:
        attended = self._random(1, hidden.shape[1], self._config.num_attention_heads * self._config.head_dim)
        return lambda: next(layers).self_attn.o_proj(attended)

    def _up_proj(self, hidden: Any, layers: Iterator[Any]) -> Callable[[], object]:
        def call() -> object:
            mlp = next(layers).mlp
            return mlp.gate_proj(hidden), mlp.up_proj(hidden)

        return call

    def _act(self, hidden: Any, layers: Iterator[Any]) -> Callable[[], object]:
        gate, up = (self._random(1, hidden.shape[1], self._config.intermediate_size) for _ in range(2))
        return lambda: next(layers).mlp.act_fn(gate) * up

    def _down_proj(self, hidden: Any, layers: Iterator[Any]) -> Callable[[], object]:
        inner = self._random(1, hidden.shape[1], self._config.intermediate_size)
        return lambda: next(layers).mlp.down_proj(inner)

    def _add(self, hidden: Any, layers: Iterator[Any]) -> Callable[[], object]:
        residual = torch.randn_like(hidden)
        return lambda: (residual + hidden, residual + hidden)  # a block adds twice

    def attention(self, batch_size: int, num_tokens: int, kv_cache_size: int) -> Callable[[], object]:
        """Read the cache and attend, as the engine does: all queries over all keys, masked."""
        queries = batch_size * num_tokens
        keys = queries + batch_size * kv_cache_size
        query = self._query(queries)
        mask = torch.full((1, 1, queries, keys), torch.finfo(self._dtype).min, dtype=self._dtype, device=self._device)
        for index in range(batch_size):
            rows = slice(index * num_tokens, (index + 1) * num_tokens)
            span = num_tokens + kv_cache_size
            block = torch.ones(num_tokens, span, device=self._device).triu(kv_cache_size + 1).bool()
            mask[0, 0, rows, index * span : (index + 1) * span].masked_fill_(~block, 0.0)
        new_key, new_value = self._key(queries), self._key(queries)
        read_index = torch.arange(keys, device=self._device) if kv_cache_size else None
        layers = cycle(self._layers)

        def call() -> object:
            layer = next(layers).self_attn
            key, value = new_key, new_value
            if read_index is not None:
                key, value = (
                    torch.index_select(view, 0, read_index).transpose(0, 1).unsqueeze(0)
                    for view in self._views(layer.layer_idx)
                )
            return self._attend(layer, query, key, value, mask, scaling=layer.scaling)

        return call

    def kv_cache_save(self, num_tokens: int) -> Callable[[], object]:
        """Write the keys and values of `num_tokens` tokens."""
        key, value = (self._key(num_tokens)[0].transpose(0, 1) for _ in range(2))
        write_index = torch.arange(num_tokens, device=self._device)
        layers = cycle(range(len(self._layers)))

        def call() -> object:
            key_view, value_view = self._views(next(layers))
            return key_view.index_copy_(0, write_index, key), value_view.index_copy_(0, write_index, value)

        return call

    @torch.no_grad()
    def time_ns(self, call: Callable[[], object]) -> int:
        """Duration of one call, nanoseconds."""
        if self._device.type == "cuda":
            start, end = (
                torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
                for _ in range(2)
            )
            start.record()
            call()
            end.record()
            end.synchronize()
            return int(start.elapsed_time(end) * 1e6)
        begin = self._clock.now_ns()
        call()
        return self._clock.now_ns() - begin

    def _views(self, layer_index: int) -> Any:
        if hasattr(self._cache, "layer_to_allocator"):
            return self._cache.layer_to_allocator[layer_index]._kv_token_views[layer_index]
        _, place = self._cache.layer_index_to_group_indices[layer_index]  # up to 5.17
        return self._cache.key_cache[place], self._cache.value_cache[place]

    def _random(self, *shape: int) -> Any:
        return torch.randn(*shape, dtype=self._dtype, device=self._device)

    def _query(self, num_tokens: int) -> Any:
        return self._random(1, self._config.num_attention_heads, num_tokens, self._config.head_dim)

    def _key(self, num_tokens: int) -> Any:
        return self._random(1, self._config.num_key_value_heads, num_tokens, self._config.head_dim)
