"""vLLM's V1 engine in this process, stepped one engine iteration at a time."""

import os
import tempfile
from typing import Any

# Read by vLLM and torch as they are imported.
os.environ.update(
    {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # threads are ours to count, the cores the system's to choose
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
)

import torch
from vllm import EngineArgs, LLMEngine, SamplingParams, TokensPrompt
from vllm import __version__ as vllm_version
from vllm.sampling_params import RequestOutputKind

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.schema import BackendConfig, HardwareConfig, ModelConfig
from gpu_simulate_test.engine import Clock, EngineInfo, EngineRequest, Failure, ScheduledSeq, Step, Token
from gpu_simulate_test.errors import ConfigError
from gpu_simulate_test.real_bench.backends.model import device_details, dummy_config, model_folder, prepare_device

_COMPLETED = ("length", "stop")


def create(
    backend: BackendConfig, limits: EngineLimits, model: ModelConfig, hardware: HardwareConfig, clock: Clock
) -> "VllmEngine":
    """Check the device, build or load the model, start the engine."""
    prepare_device(hardware)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine in our process: a step is a call
    if backend.num_threads is not None:
        torch.set_num_threads(backend.num_threads)
    with tempfile.TemporaryDirectory(prefix="gsim-vllm-") as scratch:
        if model.weights == "dummy":
            folder = scratch
            dummy_config(model).save_pretrained(folder)
        else:
            folder = str(model_folder(model))
        try:
            engine = LLMEngine.from_engine_args(_engine_args(limits, model, hardware.device, folder))
        except ValueError as error:
            raise ConfigError(f"vLLM refuses these settings: {error}") from error
    return VllmEngine(engine, model, hardware, clock)


def _engine_args(limits: EngineLimits, model: ModelConfig, device: str, folder: str) -> EngineArgs:
    dtype: torch.dtype = getattr(torch, limits.dtype)
    block_bytes = 2 * limits.block_size * model.num_kv_heads * model.head_dim * dtype.itemsize * model.num_layers
    return EngineArgs(
        model=folder,
        load_format="dummy" if model.weights == "dummy" else "safetensors",
        skip_tokenizer_init=True,
        dtype=limits.dtype,
        seed=model.seed,
        max_model_len=min(model.max_position_embeddings, limits.kv_tokens),
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        block_size=limits.block_size,
        kv_cache_memory_bytes=(limits.num_blocks + 1) * block_bytes,  # vLLM keeps one block for itself
        enforce_eager=device == "cpu",  # where compiling takes minutes and there are no CUDA graphs
        enable_prefix_caching=limits.enable_prefix_caching,
        scheduler_reserve_full_isl=limits.reserve_whole_prompt,
        async_scheduling=False,  # the tokens of an iteration are those of its own step
        disable_log_stats=True,
    )


class VllmEngine:
    """The engine protocol over vLLM's engine core, whose scheduler is listened to."""

    def __init__(self, engine: LLMEngine, model: ModelConfig, hardware: HardwareConfig, clock: Clock) -> None:
        self._engine = engine
        self._eos = model.eos_token_id
        self._device = hardware.device
        self._clock = clock
        self._core = engine.engine_core.engine_core
        self._num_blocks = self._core.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
        self._scheduled: Any = None
        schedule = self._core.scheduler.schedule

        def listen(*arguments: Any) -> Any:
            self._scheduled = schedule(*arguments)
            return self._scheduled

        self._core.scheduler.schedule = listen

    def info(self) -> EngineInfo:
        """Settings in force, read back from the engine."""
        config = self._engine.vllm_config
        details = {
            "vllm": vllm_version,
            "scheduler": type(self._core.scheduler).__name__,
            "enforce_eager": config.model_config.enforce_eager,
            "enable_prefix_caching": config.cache_config.enable_prefix_caching,
            "async_scheduling": config.scheduler_config.async_scheduling,
            "num_threads": torch.get_num_threads(),
            **device_details(self._device),
        }
        return EngineInfo(
            name="vllm",
            limits=EngineLimits(
                max_num_seqs=config.scheduler_config.max_num_seqs,
                max_num_batched_tokens=config.scheduler_config.max_num_batched_tokens,
                block_size=config.cache_config.block_size,
                num_blocks=self._num_blocks,
                enable_prefix_caching=config.cache_config.enable_prefix_caching,
                reserve_whole_prompt=config.scheduler_config.scheduler_reserve_full_isl,
                async_scheduling=config.scheduler_config.async_scheduling,
                dtype=str(config.model_config.dtype).removeprefix("torch."),
            ),
            max_model_len=config.model_config.max_model_len,
            device=self._device,
            details=details,
        )

    def submit(self, request: EngineRequest) -> None:
        """Hand over a request; vLLM refuses a prompt beyond its limits with a ValueError."""
        params = SamplingParams(
            max_tokens=request.max_new_tokens,
            temperature=0.0,
            ignore_eos=request.ignore_eos,
            stop_token_ids=None if request.ignore_eos else [self._eos],
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        self._engine.add_request(
            str(request.request_id), TokensPrompt(prompt_token_ids=list(request.token_ids)), params
        )

    def has_unfinished(self) -> bool:
        """True while a request waits or runs."""
        return bool(self._engine.has_unfinished_requests())

    def forget(self) -> None:
        """Let no later request find anything in the KV cache."""
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("the KV cache cannot be emptied while requests run")

    def step(self) -> Step:
        """Schedule, execute, update: one iteration."""
        start = self._clock.now_ns()
        outputs = self._engine.step()
        end = self._clock.now_ns()
        batch = self._batch()
        if not batch:
            raise RuntimeError("the engine has requests but scheduled none")
        preempted = [_ours(key) for key in self._scheduled.preempted_req_ids or ()]
        tokens, failures = [], []
        for output in outputs:
            request_id, (made,) = int(output.request_id), output.outputs
            if output.finished and made.finish_reason not in _COMPLETED:
                failures.append(Failure(request_id, "EngineError", f"finish_reason={made.finish_reason}"))
            tokens += [Token(request_id, int(token), output.finished) for token in made.token_ids]
        return Step(start, end, batch, tokens, failures, preempted)

    def _batch(self) -> list[ScheduledSeq]:
        """What was scheduled last, as it was before it was executed."""
        new, old = self._scheduled.scheduled_new_reqs, self._scheduled.scheduled_cached_reqs
        cached = {request.req_id: request.num_computed_tokens for request in new}
        cached |= dict(zip(old.req_ids, old.num_computed_tokens, strict=True))
        made = dict(zip(old.req_ids, old.num_output_tokens, strict=True))
        return [
            ScheduledSeq(
                _ours(key),
                count,
                cached[key],
                # Decoding adds one token to a cache that holds all others; after a preemption all is computed again.
                is_prefill=made.get(key, 0) == 0 or count > 1,
            )
            for key, count in self._scheduled.num_scheduled_tokens.items()
        ]

    def operators(self) -> None:
        """None: its kernels cannot be called one by one."""
        return

    def close(self) -> None:
        """Free the engine."""
        self._engine.engine_core.shutdown()
        del self._core, self._engine


def _ours(request_id: str) -> int:
    """Our id of a request: vLLM appends random characters to it."""
    return int(request_id.rsplit("-", 1)[0])
