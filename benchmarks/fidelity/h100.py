"""Eight published vLLM runs on H100s, two loads of each of four models, from the operator database."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.fidelity.board import Case, Errors, Row, absent, attempt
from benchmarks.fidelity.deployment import Deployment, Run
from benchmarks.stages import SHARED

DATA = SHARED / "gpu-public" / "h100-vllm-0.15"
LOADS = ("codegen", "general")
# Dimensions, GPUs and KV blocks as the data's own page tells them.
_LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000}
_MIXTRAL = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 32000}
_KEYS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")


@dataclass(frozen=True)
class Served:
    """A model, how it was served, and what is known of its errors; whether its general load fills the engine."""

    model: str
    gpus: int
    num_blocks: int
    config: Mapping[str, object]
    why: str = ""
    why_calibrated: str = ""
    queues: bool = False


def _served(
    model: str,
    gpus: int,
    num_blocks: int,
    family: dict[str, object],
    *sizes: int,
    why: str = "",
    why_calibrated: str = "",
    queues: bool = False,
    **more: int,
) -> Served:
    said = {**family, **dict(zip(_KEYS, sizes, strict=True)), **more}
    config = {"max_position_embeddings": 4096, "torch_dtype": "bfloat16"} | said
    return Served(model, gpus, num_blocks, config, why, why_calibrated, queues)


Runs = Sequence[tuple[Served, Mapping[str, Run]]]
"""Each model with its runs by load."""

SERVED = {
    "llama-2-7b-tp1": _served(
        *("Llama-2-7B", 1, 7462, _LLAMA, 32, 4096, 32, 32, 11008),
        why="the database has no attention of 32 KV heads a GPU: it is that of 8, of a batch four times as large",
        why_calibrated="one factor on all kernels mends that attention at the load it is learned from, not at another",
    ),
    "codellama-34b-tp2": _served(
        *("CodeLlama-34B", 2, 26602, _LLAMA, 48, 8192, 64, 8, 22016), max_position_embeddings=16384
    ),
    "llama-2-70b-tp4": _served(*("Llama-2-70B", 4, 31356, _LLAMA, 80, 8192, 64, 8, 28672), queues=True),
    "mixtral-8x7b-tp2": _served(
        *("Mixtral-8x7B", 2, 27510, _MIXTRAL, 32, 4096, 32, 8, 14336),
        queues=True,
        num_local_experts=8,
        num_experts_per_tok=2,
    ),
}
_QUEUE = (
    "at its busiest the run is at the 128 sequences that the engine takes, where a few per cent of an iteration decide "
    "how many requests wait"
)
_FRONT_END = "client, HTTP, tokenizer and the engine's own host work are in TTFT and in no table"


def _runs(scratch: Path) -> Runs:
    """Each model's runs by load; none where the data are not here."""
    if not DATA.is_dir():
        return []
    return [(served, _runs_of(scratch / "h100" / name, name, served)) for name, served in SERVED.items()]


def cases(scratch: Path) -> list[Case]:
    """A row a run, calibrated on the other load of the same model."""
    if not (found := _runs(scratch)):
        return absent("H100, eight runs", f"gpu-public/{DATA.name}")
    return [
        Case(
            Row(
                run.name,
                f"{served.gpus} H100",
                served.model,
                "vLLM 0.15.1",
                line="vLLM on 1 to 4 H100s",
                donor=by_load[other].name,
                why=_reasons(ttft=_FRONT_END, e2e=served.why),
                why_calibrated=_reasons(
                    ttft=_QUEUE if served.queues and load == "general" else "", e2e=served.why_calibrated
                ),
            ),
            run.plain,
            partial(run.calibrated_on, by_load[other]),
        )
        for served, by_load in found
        for (load, run), other in zip(by_load.items(), reversed(LOADS), strict=True)
    ]


def _reasons(**why: str) -> dict[str, str]:
    return {metric: reason for metric, reason in why.items() if reason}


def across_models(scratch: Path) -> list[tuple[str, list[Errors | str]]]:
    """Each model's general load by the constants of every model's codegen load: a row a model that is predicted."""
    found = _runs(scratch)
    return [
        (served.model, [attempt(partial(by_load["general"].calibrated_on, donor["codegen"])) for _, donor in found])
        for served, by_load in found
    ]


def _runs_of(root: Path, name: str, served: Served) -> Mapping[str, Run]:
    model = root / name
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text(json.dumps(served.config), encoding="utf-8")
    settings = (
        "hardware=h100",
        "model=hf",
        f"model.config={model}",
        "backend=recorded",
        "backend.engine=vllm",
        "backend.engine_version=0.15.1",
        "profile=operator_db",
        "workload=trace",
        "limits.max_num_seqs=128",
        "limits.max_num_batched_tokens=2048",
        f"limits.num_blocks={served.num_blocks}",
        f"limits.tensor_parallel={served.gpus}",
    )
    deployment = Deployment(root, settings)
    return {
        load: deployment.run(f"{name}-{load}", f"workload.trace={DATA / f'{name}-{load}.csv.gz'}") for load in LOADS
    }
