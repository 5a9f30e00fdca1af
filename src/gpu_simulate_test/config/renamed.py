"""Settings that had another name. On the command line the old one is taken; in a file it is refused."""

RENAMED = {
    "backend.max_num_seqs": "limits.max_num_seqs",
    "backend.max_num_batched_tokens": "limits.max_num_batched_tokens",
    "backend.block_size": "limits.block_size",
    "backend.num_blocks": "limits.num_blocks",
    "backend.enable_prefix_caching": "limits.enable_prefix_caching",
    "backend.batching": "limits.max_num_seqs",
    "backend.profile": "profile.folder",
    "replay": "workload.arrival.kind",
    "parallel.tensor": "limits.tensor_parallel",
    "parallel.pipeline": "limits.pipeline_parallel",
    "parallel.expert": "limits.expert_parallel",
    "parallel.data": "limits.data_parallel",
}
_BATCHING = {"continuous": None, "sequential": "limits.max_num_seqs=1"}


def renewed(override: str) -> tuple[str | None, str | None]:
    """An override with its new key, and what to tell the user; the override is None where nothing is left of it.

    Parameters
    ----------
    override : str
        As typed: ``[+|++|~]key[=value]``.
    """
    key, equals, value = override.partition("=")
    sign = key[: len(key) - len(key.lstrip("+~"))]
    new = RENAMED.get(key.lstrip("+~"))
    if new is None:
        return override, None
    if new == "limits.max_num_seqs" and value in _BATCHING:
        said = _BATCHING[value]
        return said, f"{override} is {said or 'the default'} now"
    return f"{sign}{new}{equals}{value}", f"{key.lstrip('+~')} is {new} now"
