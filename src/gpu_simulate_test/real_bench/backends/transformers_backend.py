"""transformers' continuous batching, stepped one engine iteration at a time.

The library's manager runs a background thread whose clients see tokens late. Here its batch processor
is driven directly: prepare, forward and sample, update is one step, and a token's time is the end of
the step that made it.
"""

import logging
import queue
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers import logging as transformers_logging
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from gpu_simulate_test.config.limits import EngineLimits
from gpu_simulate_test.config.schema import BackendConfig, HardwareConfig, ModelConfig
from gpu_simulate_test.engine import Clock, EngineInfo, EngineRequest, Failure, Operators, ScheduledSeq, Step, Token
from gpu_simulate_test.errors import MachineError
from gpu_simulate_test.real_bench.backends.model import device_details, dummy_config, model_folder, prepare_device
from gpu_simulate_test.real_bench.backends.transformers_operators import TransformersOperators, block_size

log = logging.getLogger(__name__)

_SETTINGS = ContinuousBatchingConfig.__dataclass_fields__
_BLOCK_SIZE = "page_size" if "page_size" in _SETTINGS else "block_size"  # up to 5.17
_CAN_REFUSE_FLASH = "auto_switch_to_flash" in _SETTINGS  # up to 5.18 only an attention named "paged|..." is left alone


def create(
    backend: BackendConfig, limits: EngineLimits, model: ModelConfig, hardware: HardwareConfig, clock: Clock
) -> "TransformersEngine":
    """Check the device, build or load the model, start the engine."""
    prepare_device(hardware)
    if backend.num_threads is not None:
        torch.set_num_threads(backend.num_threads)
    transformers_logging.set_verbosity_error()
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    return TransformersEngine(backend, limits, model, hardware, clock, _load_model(model, hardware, backend, limits))


class TransformersEngine:
    """The engine protocol over transformers' batch processor, which is private to that library."""

    def __init__(
        self,
        backend: BackendConfig,
        limits: EngineLimits,
        model_config: ModelConfig,
        hardware: HardwareConfig,
        clock: Clock,
        model: Any,
    ) -> None:
        self._clock = clock
        self._model = model
        self._eos = model_config.eos_token_id
        self._max_model_len = model_config.max_position_embeddings
        self._attn_implementation = backend.attn_implementation
        self._manager = model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
            continuous_batching_config=ContinuousBatchingConfig(
                **{_BLOCK_SIZE: limits.block_size},
                num_blocks=limits.num_blocks,
                max_batch_tokens=limits.max_num_batched_tokens,
                max_requests_per_batch=limits.max_num_seqs,
                allow_block_sharing=False,
                use_cuda_graph=False,
                use_async_batching=False,
                scheduler_type="fifo",
                safety_margin=0.0,
                seed=model_config.seed,
                **({"auto_switch_to_flash": False} if _CAN_REFUSE_FLASH else {}),
            ),
        )
        try:
            self._processor = self._manager._create_batch_processor()
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise MachineError(
                f"not enough memory for {limits.num_blocks} KV blocks; lower limits.num_blocks"
            ) from error
        self._scheduler = self._processor.scheduler
        self._device = hardware.device

    def info(self) -> EngineInfo:
        """Settings in force, read back from the engine."""
        cache = self._processor.cache
        details: dict[str, Any] = {
            "scheduler": "fifo",
            "attn_implementation": self._model.config._attn_implementation.removeprefix("paged|"),
            "num_threads": torch.get_num_threads(),
            **device_details(self._device),
        }
        return EngineInfo(
            name="transformers",
            limits=EngineLimits(
                max_num_seqs=self._scheduler.max_requests_per_batch,
                max_num_batched_tokens=cache.max_batch_tokens,
                block_size=block_size(cache),
                num_blocks=cache.num_blocks,
                dtype=str(self._model.dtype).removeprefix("torch."),
            ),
            max_model_len=self._max_model_len,
            device=self._device,
            details=details,
        )

    def submit(self, request: EngineRequest) -> None:
        """Put a request into the manager's queue, which the next step drains."""
        self._manager.add_request(
            input_ids=list(request.token_ids),
            request_id=str(request.request_id),
            max_new_tokens=request.max_new_tokens,
            eos_token_id=-1 if request.ignore_eos else self._eos,
        )

    def forget(self) -> None:
        """Blocks are not shared: nothing is found."""

    def has_unfinished(self) -> bool:
        """True while a request is queued, waiting or running."""
        return not self._manager.input_queue.empty() or self._processor.has_pending_requests()

    def step(self) -> Step:
        """Prepare, forward and sample, update: one iteration."""
        active = set(self._scheduler.active_requests)
        start = self._clock.now_ns()
        if not self._processor.prepare_next_batch():
            raise RuntimeError("the engine has requests but scheduled none")
        scheduled = list(self._processor.inputs_and_outputs.requests_in_batch)
        batch = [_scheduled_seq(future) for future in scheduled]
        preempted = [int(key) for key in active - set(self._scheduler.active_requests)]
        self._processor._generation_step(self._model)
        self._processor.update_batch()
        end = self._clock.now_ns()
        tokens = [
            Token(int(future.state.request_id), int(future.state.generated_tokens[-1]), future.state.status >= 3)
            for future in scheduled
            if future.has_new_token
        ]
        return Step(start, end, batch, tokens, self._failures(), preempted)

    def _failures(self) -> list[Failure]:
        failures: list[Failure] = []
        while True:
            try:
                output = self._manager.output_router.output_queue.get_nowait()
            except queue.Empty:
                return failures
            if output.error is not None:
                failures.append(Failure(int(output.request_id), "EngineError", output.error))

    def close(self) -> None:
        """Drop the cache and the model."""
        del self._processor, self._scheduler, self._manager, self._model
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def operators(self) -> Operators:
        """Operators of the loaded model's own layers."""
        return TransformersOperators(self._model, self._processor.cache, self._attn_implementation, self._clock)


def _scheduled_seq(future: Any) -> ScheduledSeq:
    state = future.state
    # The engine has already advanced position_offset past this batch's tokens.
    cached = state.position_offset - future.query_length
    return ScheduledSeq(int(state.request_id), future.query_length, cached, is_prefill=state.generated_len() == 0)


def _load_model(model: ModelConfig, hardware: HardwareConfig, backend: BackendConfig, limits: EngineLimits) -> Any:
    dtype = getattr(torch, limits.dtype)
    if model.weights == "dummy":
        torch.manual_seed(model.seed)
        with torch.device(hardware.device):  # half a billion random numbers take a CPU half a minute
            loaded = AutoModelForCausalLM.from_config(dummy_config(model), dtype=dtype)
    else:
        loaded = AutoModelForCausalLM.from_pretrained(
            model_folder(model), dtype=dtype, local_files_only=True, use_safetensors=True
        )
    attention = backend.attn_implementation
    loaded.set_attn_implementation(attention if _CAN_REFUSE_FLASH else f"paged|{attention}")
    return loaded.to(hardware.device).eval()
