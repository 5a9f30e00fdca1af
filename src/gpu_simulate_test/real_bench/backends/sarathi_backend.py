"""Sarathi-Serve's engine, stepped one iteration at a time. Its worker is a Ray actor, reached over ZeroMQ.

Its scheduling has been run here with a stand-in worker; with its own worker, on a GPU, it has not been run.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sarathi

from gpu_simulate_test.errors import ConfigError, MachineError

if not hasattr(sarathi, "LLMEngine"):
    raise MachineError(
        f"not Sarathi-Serve: {sarathi.__file__} is another program of that name; uninstall it, and clone and build "
        "Sarathi-Serve as extern/README.md says"
    )
os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"})

import ray
from sarathi import SamplingParams
from sarathi.config import (
    CacheConfig,
    MetricsConfig,
    ParallelConfig,
    ReplicaConfig,
    SarathiSchedulerConfig,
    SystemConfig,
    WorkerConfig,
)
from sarathi.config import ModelConfig as SarathiModelConfig
from sarathi.engine.base_llm_engine import BaseLLMEngine
from sarathi.types import AttentionBackend
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from gpu_simulate_test.config.limits import SARATHI_WATERMARK, EngineLimits
from gpu_simulate_test.config.schema import BackendConfig, HardwareConfig, ModelConfig
from gpu_simulate_test.engine import Clock, EngineInfo, EngineRequest, Failure, ScheduledSeq, Step, Token
from gpu_simulate_test.real_bench.backends.model import device_details, dummy_config, model_folder, prepare_device
from gpu_simulate_test.real_bench.backends.sarathi_worker import WatchedSocket, dead, start_ray


def create(
    backend: BackendConfig, limits: EngineLimits, model: ModelConfig, hardware: HardwareConfig, clock: Clock
) -> "SarathiEngine":
    """Check the device, start Ray and the engine with its worker."""
    if hardware.device != "cuda":
        raise MachineError(f"backend=sarathi needs a GPU: hardware={hardware.name} is none; use hardware=a100")
    prepare_device(hardware)
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] != "0":
        raise MachineError("Sarathi-Serve ignores CUDA_VISIBLE_DEVICES and takes GPU 0; unset it")
    start_ray()
    with tempfile.TemporaryDirectory(prefix="gsim-sarathi-") as scratch:
        try:
            engine = LimitedEngine(system_config(backend, limits, model, Path(scratch)), limits.num_blocks)
        except (ValueError, KeyError) as error:
            raise ConfigError(f"Sarathi-Serve refuses these settings: {error}") from error
        except ImportError as error:
            raise MachineError(f"Sarathi-Serve is not built: {error}; build it as extern/README.md says") from error
        except ray.exceptions.RayError as error:
            raise dead(error) from error
    return SarathiEngine(engine, hardware, clock)


def system_config(backend: BackendConfig, limits: EngineLimits, model: ModelConfig, scratch: Path) -> SystemConfig:
    """Sarathi-Serve's configuration; the files of a model with random weights are made in `scratch`."""
    attention = backend.attn_implementation.upper()
    if attention not in AttentionBackend.__members__:
        raise ConfigError(
            f"backend.attn_implementation={backend.attn_implementation} is not Sarathi-Serve's: flashinfer"
        )
    if model.weights == "dummy":
        _describe_model(model, scratch)
    return SystemConfig(
        replica_config=ReplicaConfig(output_dir=str(scratch)),
        model_config=_ModelConfig(
            model=str(scratch if model.weights == "dummy" else model_folder(model)),
            trust_remote_code=False,
            load_format="dummy" if model.weights == "dummy" else "safetensors",
            dtype=limits.dtype,
            seed=model.seed,
            max_model_len=min(model.max_position_embeddings, limits.kv_tokens),
        ),
        worker_config=WorkerConfig(attention_backend=AttentionBackend[attention]),
        cache_config=CacheConfig(block_size=limits.block_size),
        parallel_config=ParallelConfig(pipeline_parallel_size=1, tensor_parallel_size=1),
        scheduler_config=SarathiSchedulerConfig(
            max_num_seqs=limits.max_num_seqs, chunk_size=limits.max_num_batched_tokens
        ),
        metrics_config=MetricsConfig(write_metrics=False, enable_chrome_trace=False),
    )


def _describe_model(model: ModelConfig, folder: Path) -> None:
    """Its config, and a tokenizer that knows the end token alone: the engine insists on one."""
    config = dummy_config(model)
    config.rope_theta = model.rope_theta  # where transformers < 5 looks for it
    config.save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({"</s>": model.eos_token_id}, unk_token="</s>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)


class _ModelConfig(SarathiModelConfig):
    """Theirs takes hidden size / heads for the head size; Qwen3's is another."""

    def get_head_size(self) -> int:
        return int(getattr(self.hf_config, "head_dim", None) or super().get_head_size())


class LimitedEngine(BaseLLMEngine):
    """Their engine with at most `num_blocks` KV blocks, and a worker that knows Qwen3."""

    output_socket: Any

    def __init__(self, config: SystemConfig, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        super().__init__(config)
        self.output_socket = WatchedSocket(self.output_socket, self.workers[0])

    def _get_worker_impl(self) -> Any:
        from gpu_simulate_test.real_bench.backends.sarathi_qwen3 import Worker  # imports compiled kernels

        return Worker

    def _run_workers(self, method: str, *arguments: Any, **options: Any) -> Any:
        answer = super()._run_workers(method, *arguments, **options)
        if method == "profile_num_available_blocks":
            return [min(number, self._num_blocks) for number in answer]
        return answer


@dataclass
class _Progress:
    left: int  # output tokens still to be made
    seen: int = 0  # of the engine's list of them, which a preemption empties


class SarathiEngine:
    """The engine protocol over Sarathi-Serve's engine, whose sequence manager is listened to."""

    def __init__(self, engine: BaseLLMEngine, hardware: HardwareConfig, clock: Clock) -> None:
        self._engine = engine
        self._device = hardware.device
        self._clock = clock
        self._progress: dict[int, _Progress] = {}
        self._batch: list[ScheduledSeq] = []
        self._preempted: list[int] = []
        config = engine.config
        self._num_blocks = int(config.cache_config.num_gpu_blocks)
        # Admission leaves the watermark free; decoding asks for a free block even when it needs none.
        kept_free = max(1, engine.scheduler.block_manager.watermark_blocks)
        usable = (self._num_blocks - kept_free) * config.cache_config.block_size
        self._max_model_len = min(config.model_config.max_model_len, usable)
        engine.seq_manager._on_append_token = lambda seq: None  # no detokenizing, as with the other engines
        engine.seq_manager.on_schedule = self._listen(engine.seq_manager.on_schedule)

    def _listen(self, on_schedule: Any) -> Any:
        """Note what the scheduler decided, once preempted sequences are reset and before anything is executed."""

        def listen(scheduled: Any) -> Any:
            ignored, batch = on_schedule(scheduled)
            self._preempted = [int(key) for key in scheduled.preempted_seq_ids]
            self._batch = [
                ScheduledSeq(
                    int(entry.seq.seq_id),
                    entry.num_tokens,
                    # The newest token of a decoding sequence is not in its cache yet.
                    entry.seq.get_num_prompt_tokens_stage_processed() if entry.is_prompt else entry.seq.get_len() - 1,
                    entry.is_prompt,
                )
                for entry in batch
            ]
            return ignored, batch

        return listen

    def info(self) -> EngineInfo:
        """Settings in force, read back from the engine."""
        config = self._engine.config
        details = {
            "sarathi": sarathi.__version__,
            "scheduler": type(self._engine.scheduler).__name__,
            "attention_backend": config.worker_config.attention_backend.name,
            "watermark_blocks": self._engine.scheduler.block_manager.watermark_blocks,
            **device_details(self._device),
        }
        return EngineInfo(
            name="sarathi",
            limits=EngineLimits(
                max_num_seqs=config.scheduler_config.max_num_seqs,
                max_num_batched_tokens=config.scheduler_config.get_max_num_batched_tokens(self._max_model_len),
                block_size=config.cache_config.block_size,
                num_blocks=self._num_blocks,
                watermark=SARATHI_WATERMARK,
                dtype=str(config.model_config.dtype).removeprefix("torch."),
            ),
            max_model_len=self._max_model_len,
            device=self._device,
            details=details,
        )

    def submit(self, request: EngineRequest) -> None:
        """Hand over a request; ValueError where the engine would drop it silently, or never finish it."""
        tokens = len(request.token_ids) + request.max_new_tokens
        if tokens > self._max_model_len:
            raise ValueError(f"{tokens} tokens of prompt and output are above the engine's {self._max_model_len}")
        params = SamplingParams(  # top_k=1 is greedy; temperature=0 would sample
            temperature=1.0, top_k=1, ignore_eos=request.ignore_eos, max_tokens=request.max_new_tokens
        )
        self._engine.add_request("", params, prompt_token_ids=list(request.token_ids), seq_id=str(request.request_id))
        self._progress[request.request_id] = _Progress(request.max_new_tokens)

    def forget(self) -> None:
        """Blocks are not shared: nothing is found."""

    def has_unfinished(self) -> bool:
        """True while a sequence waits or runs."""
        return bool(self._engine.has_unfinished_requests())

    def step(self) -> Step:
        """Schedule, execute, update: one iteration."""
        self._batch = []
        start = self._clock.now_ns()
        outputs = self._engine.step()
        end = self._clock.now_ns()
        if not self._batch:
            raise MachineError(
                f"Sarathi-Serve scheduled nothing though requests wait: {self._num_blocks} KV blocks are too few; "
                "raise limits.num_blocks"
            )
        for request_id in self._preempted:
            if request_id in self._progress:
                self._progress[request_id].seen = 0
        tokens: list[Token] = []
        failures: list[Failure] = []
        for output in outputs:
            request_id = int(output.seq_id)
            progress = self._progress.get(request_id)
            if progress is None:
                continue  # preempted once: the engine counts its output from there, and makes more than was asked
            made = output.token_ids[progress.seen :]
            progress.seen += len(made)
            progress.left -= len(made)
            ended = output.finished or not progress.left
            tokens += [Token(request_id, int(token), ended) for token in made]
            if ended:
                del self._progress[request_id]
                if not made:
                    failures.append(Failure(request_id, "EngineError", f"finish_reason={output.finish_reason}"))
        return Step(start, end, self._batch, tokens, failures, self._preempted)

    def operators(self) -> None:
        """None: its kernels cannot be called one by one."""
        return

    def close(self) -> None:
        """End the worker and Ray."""
        self._engine.zmq_context.destroy(linger=0)
        ray.shutdown()
