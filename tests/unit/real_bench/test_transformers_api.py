"""What we use of transformers that is private to it is there, in the installed release: no model is needed to see it.

Read from our own source: what is taken of an object by a name below, and with which arguments it is called.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_simulate_test.config.paths import PACKAGE_DIR, project_root

# transformers is imported in the tests: that takes longer than they do, and not every process that collects runs them
BACKENDS = PACKAGE_DIR / "real_bench" / "backends"
Owners = dict[Path, dict[str, type]]
UP_TO_5_17 = {"layer_index_to_group_indices", "key_cache", "value_cache"}  # of releases with another cache


@pytest.fixture(scope="module")
def owners() -> Owners:
    """By file: what we call it there, and the class that transformers has for it."""
    from transformers import Qwen3Config
    from transformers.generation.continuous_batching import cache, continuous_api, input_outputs, requests, scheduler
    from transformers.models.qwen3 import modeling_qwen3

    manager, processor = continuous_api.ContinuousBatchingManager, continuous_api.ContinuousBatchProcessor
    return {
        BACKENDS / "transformers_backend.py": {
            "self._manager": manager,
            "self._manager.output_router": continuous_api.OutputRouter,
            "output": requests.GenerationOutput,
            "self._processor": processor,
            "self._processor.inputs_and_outputs": input_outputs.ContinuousBatchingIOs,
            "self._processor.cache": cache.PagedAttentionCache,
            "cache": cache.PagedAttentionCache,
            "self._scheduler": scheduler.FIFOScheduler,
            "future": requests.FutureRequestState,
            "future.state": requests.RequestState,
            "state": requests.RequestState,
        },
        BACKENDS / "transformers_operators.py": {
            "self._cache": cache.PagedAttentionCache,
            "self._config": Qwen3Config,
            "model.model": modeling_qwen3.Qwen3Model,
            "next(layers)": modeling_qwen3.Qwen3DecoderLayer,
            "attention": modeling_qwen3.Qwen3Attention,
            "next(layers).self_attn": modeling_qwen3.Qwen3Attention,
            "layer": modeling_qwen3.Qwen3Attention,
            "mlp": modeling_qwen3.Qwen3MLP,
            "next(layers).mlp": modeling_qwen3.Qwen3MLP,
        },
        project_root() / "benchmarks" / "real_bench.py": {"manager": manager, "processor": processor},
    }


def uses(of_files: Owners) -> Iterator[tuple[str, type, ast.Attribute, ast.Call | None]]:
    """Where, the class, the attribute taken of it, and the call of that attribute, if it is called."""
    for file, owners in of_files.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (owner := ast.unparse(node.value)) in owners:
                yield f"{file.name}:{node.lineno}", owners[owner], node, calls.get(id(node))


def members(owner: type) -> set[str]:
    """Names that an object of the class has: the class's own, and those assigned to it in its methods."""
    names = set(dir(owner))
    for base in owner.__mro__:
        names |= {*getattr(base, "__annotations__", {}), *getattr(base, "__slots__", ())}
        if base.__module__.startswith(owner.__module__.rpartition(".")[0]):
            nodes = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base))))
            attributes = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
            names |= {node.attr for node in attributes if ast.unparse(node.value) == "self"}
    return names


def test_every_attribute_that_we_read_is_there(owners: Owners) -> None:
    known = {owner: members(owner) for of_file in owners.values() for owner in of_file.values()}
    missing = [
        f"{where}: {owner.__name__}.{node.attr}"
        for where, owner, node, _ in uses(owners)
        if node.attr not in known[owner] and node.attr not in UP_TO_5_17
    ]
    assert missing == []


def test_every_method_takes_the_arguments_that_we_give(owners: Owners) -> None:
    called = set()
    for where, owner, node, call in uses(owners):
        method = inspect.getattr_static(owner, node.attr, None)
        if call is None or not inspect.isfunction(method):
            continue
        called.add(node.attr)
        names = {keyword.arg: None for keyword in call.keywords if keyword.arg}
        try:
            inspect.signature(method).bind(None, *call.args, **names)
        except TypeError as error:
            pytest.fail(f"{where}: {owner.__name__}.{node.attr}: {error}")
    loop = {"add_request", "_create_batch_processor", "has_pending_requests", "prepare_next_batch", "_generation_step"}
    assert called >= {*loop, "update_batch", "generated_len"}, "the calls are found in our source"


def test_the_settings_that_we_give_are_settings() -> None:
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    tree = ast.parse((BACKENDS / "transformers_backend.py").read_text(encoding="utf-8"))
    (call,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ContinuousBatchingConfig"
    )
    given = {keyword.arg for keyword in call.keywords if keyword.arg}
    fields = set(ContinuousBatchingConfig.__dataclass_fields__)
    assert given
    assert given <= fields
    assert {"page_size", "block_size"} & fields


def test_a_request_that_ended_has_a_state_of_three_or_more() -> None:
    from transformers.generation.continuous_batching.requests import RequestStatus as status

    assert [one.name for one in status if one >= 3] == ["FINISHED", "FAILED"]


def test_attention_and_rotary_embedding_are_called_as_the_model_calls_them() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.qwen3 import modeling_qwen3

    inspect.signature(modeling_qwen3.apply_rotary_pos_emb).bind(*("query", "key", "cos", "sin"))
    inspect.signature(ALL_ATTENTION_FUNCTIONS["sdpa"]).bind(*("layer", "query", "key", "value", "mask"), scaling=1.0)


def test_the_views_of_the_cache_are_where_we_look() -> None:
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    if "layer_to_allocator" not in members(PagedAttentionCache):
        assert members(PagedAttentionCache) >= UP_TO_5_17
        return
    from transformers.generation.continuous_batching.cache_allocators import full_attention

    (allocator,) = (one for name, one in vars(full_attention).items() if name.startswith("FullAttention"))
    assert members(allocator) >= {"_kv_token_views", "tokens_per_page"}
