"""Prompts to token ids, with the model's own tokenizer."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gpu_simulate_test.config.ids import file_sha256
from gpu_simulate_test.config.paths import PACKAGE_DIR
from gpu_simulate_test.config.schema import ModelConfig
from gpu_simulate_test.errors import ConfigError, MachineError
from gpu_simulate_test.io.workload import read_prompts, token_ids

EXAMPLE_PROMPTS = PACKAGE_DIR / "workloads" / "example_prompts.jsonl"


def tokenizer_ref(model: ModelConfig) -> str:
    """What the tokenizer is: a file's hash, or the training text's."""
    if model.tokenizer == "example_prompts":
        return f"bpe-{model.vocab_size} trained on example_prompts.jsonl sha256:{file_sha256(EXAMPLE_PROMPTS)}"
    file = _source_file(model)
    return f"{model.id} tokenizer.json sha256:{file_sha256(file)}" if file else "none"


def tokenize(prompts: list[dict[str, Any]], model: ModelConfig) -> list[list[int]]:
    """Token ids of each prompt: its own where it has them, else its text tokenized.

    Raises
    ------
    MachineError
        A text needs a tokenizer whose files are not on this machine.
    ConfigError
        A token id lies outside the model's vocabulary, or a text gives no token.
    """
    encode: Callable[[str], list[int]] | None = None
    result = []
    for prompt in prompts:
        ids = token_ids(prompt)
        if ids is None:
            encode = encode or encoder(model)
            ids = encode(prompt["text"])
        if not ids:
            raise ConfigError(f"prompt has no token: {prompt['prompt_id']}")
        if max(ids) >= model.vocab_size:
            raise ConfigError(
                f"token id {max(ids)} is outside the vocabulary of {model.id} ({model.vocab_size}): "
                f"{prompt['prompt_id']}"
            )
        result.append(ids)
    return result


def encoder(model: ModelConfig) -> Callable[[str], list[int]]:
    """The function from text to token ids of the model's tokenizer.

    Raises
    ------
    MachineError
        Its files are not on this machine.
    """
    if model.tokenizer == "example_prompts":
        tokenizer = _train(model.vocab_size)
    else:
        file = _source_file(model)
        if file is None:
            need = (
                f"{model.path}/tokenizer.json; run the bootstrap script under models/"
                if model.path
                else "set model.path"
            )
            raise MachineError(
                f"tokenizer of {model.id} is missing: {need}, or use workload=synthetic, which needs none"
            )
        tokenizer = Tokenizer.from_file(str(file))
    return lambda text: list(tokenizer.encode(text).ids)


def _source_file(model: ModelConfig) -> Path | None:
    file = Path(model.path or "") / "tokenizer.json"
    return file if model.path and file.is_file() else None


@cache
def _train(vocab_size: int) -> Tokenizer:
    """A byte-level BPE of the shipped prompts; deterministic, a fraction of a second."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<eos>", "<bos>", "<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([prompt["text"] for prompt in read_prompts(EXAMPLE_PROMPTS)], trainer)
    return tokenizer
