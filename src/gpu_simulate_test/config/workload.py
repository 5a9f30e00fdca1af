"""Settings of the workload."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gpu_simulate_test.config.base import MAX_REQUESTS, MAX_SECONDS, MAX_TOKENS, Float, Int, Seed, Settings, Tokens
from gpu_simulate_test.errors import ConfigError

MAX_ARRIVAL_NS = 100 * 365 * 86_400 * 10**9  # of the last request; int64 ends at 292 years
_Rate = Annotated[Float, Field(ge=1e-9, le=1e9)]
_Scale = Annotated[Float, Field(ge=1e-6, le=1e6)]
_Seconds = Annotated[Float, Field(ge=0, le=MAX_SECONDS)]
_Sigma = Annotated[Float, Field(ge=0, le=10)]
_Zipf = Annotated[Float, Field(ge=0, le=20)]
_Median = Annotated[Float, Field(ge=1, le=MAX_TOKENS)]
_MIN, _MEDIAN = "with it: uniform over [min, {}]", "with sigma: lognormal, cut to [min or 1, {}]"
_SIGMA, _ZIPF = (
    "standard deviation of the logarithm",
    "exponent: length n as likely as n^-exponent, over the same range",
)


class ArrivalConfig(Settings):
    """When requests arrive."""

    kind: Literal["fixed_interval", "poisson", "gamma", "ramp", "trace", "closed_loop"] = Field(
        description="how the gaps are made; trace: as recorded there; closed_loop: a request is sent when one "
        "completes, also with a recorded run in place of its arrivals"
    )
    inter_arrival_ns: Int = Field(ge=0, le=MAX_ARRIVAL_NS, description="fixed_interval: the gap")
    rate_per_s: _Rate = Field(description="requests a second; ramp: at the first request")
    cv: Float = Field(
        default=1.0, ge=1e-3, le=1e3, description="gamma: standard deviation of the gaps / their mean; above 1: bursts"
    )
    end_rate_per_s: _Rate | None = Field(default=None, description="ramp: the rate at the last request")
    concurrency: Annotated[Int, Field(ge=1, le=MAX_REQUESTS)] | None = Field(
        default=None, description="closed_loop: users, each with one request at a time"
    )
    think_time_s: _Seconds = Field(
        default=0.0, description="closed_loop, sessions: from an answer until its user sends the next request"
    )
    ramp_s: _Seconds = Field(default=0.0, description="closed_loop: the users begin evenly over that time")

    @model_validator(mode="after")
    def _whole(self) -> "ArrivalConfig":
        if self.kind == "ramp" and self.end_rate_per_s is None:
            raise ConfigError("workload.arrival.end_rate_per_s is missing: workload.arrival.kind=ramp needs it")
        if self.kind == "closed_loop" and self.concurrency is None:
            raise ConfigError("workload.arrival.concurrency is missing: workload.arrival.kind=closed_loop needs it")
        return self


class PrefixConfig(Settings):
    """What synthetic prompts begin with in common."""

    num_prefixes: Int = Field(
        default=1, ge=1, le=MAX_REQUESTS, description="synthetic: how many; one is drawn for each"
    )
    num_tokens: Tokens | None = Field(
        default=None, description="synthetic: tokens of each, counted in num_prefill_tokens; null: nothing is shared"
    )


def _within(key: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise ConfigError(f"{key}={value} is out of range: it must be from {low:,.15g} to {high:,.15g}")


@dataclass(frozen=True)
class LengthConfig:
    """How many tokens a prompt or an output has.

    All `high`; with `low` uniform over [low, high]; lognormal with `median` and `sigma`, or Zipf with the exponent
    `zipf`, within [low or 1, high].
    """

    high: int
    low: int | None
    median: float | None
    sigma: float | None
    zipf: float | None

    @property
    def shortest(self) -> int:
        """The least that may be drawn."""
        drawn = self.low is not None or self.median is not None or self.zipf is not None
        return (self.low or 1) if drawn else self.high

    def check(self, key: str) -> None:
        """Raise ConfigError where two settings contradict each other; `key` is the name of `high`."""
        low = self.low or 1
        if low > self.high:
            raise ConfigError(f"{key}_min={low} is above {key}={self.high}")
        if (self.median is None) != (self.sigma is None):
            raise ConfigError(f"{key}_median and {key}_sigma go together: both make the lengths lognormal")
        _within(f"{key}_median", self.median, low, self.high)
        if self.median is not None and self.zipf is not None:
            raise ConfigError(f"{key}_median and {key}_zipf exclude each other: lengths are lognormal or Zipf")


class WorkloadConfig(Settings):
    """What is asked of the engine: prompts (from a file, synthetic, or as recorded), output lengths, arrivals."""

    source: Literal["prompts", "synthetic", "trace"] = Field(description="where requests come from")
    prompts: str | None = Field(description="prompts: your own JSON Lines file, or the shipped one")
    num_requests: Annotated[Int, Field(ge=1, le=MAX_REQUESTS)] | None = Field(
        description="how many: the first N, prompts from the top again when there are fewer; null: each once"
    )
    num_prefill_tokens: Tokens | None = Field(description="synthetic: tokens of a prompt, at most")
    num_prefill_tokens_min: Tokens | None = Field(description=_MIN.format("num_prefill_tokens"))
    num_decode_tokens: Tokens = Field(description="output tokens asked of each request, at most; a trace has its own")
    num_decode_tokens_min: Tokens | None = Field(description=_MIN.format("num_decode_tokens"))
    seed: Seed = Field(description="of lengths, tokens and arrivals")
    arrival: ArrivalConfig
    prefix: PrefixConfig = Field(default_factory=PrefixConfig)
    workload_dir: str | None = Field(description="a finished workload instead of the one these settings name")
    num_prefill_tokens_median: _Median | None = Field(default=None, description=_MEDIAN.format("num_prefill_tokens"))
    num_prefill_tokens_sigma: _Sigma | None = Field(default=None, description=_SIGMA)
    num_prefill_tokens_zipf: _Zipf | None = Field(default=None, description=_ZIPF)
    num_decode_tokens_median: _Median | None = Field(default=None, description=_MEDIAN.format("num_decode_tokens"))
    num_decode_tokens_sigma: _Sigma | None = Field(default=None, description=_SIGMA)
    num_decode_tokens_zipf: _Zipf | None = Field(default=None, description=_ZIPF)
    trace: str | None = Field(
        default=None, description="trace: a file of recorded requests; its content says its format"
    )
    trace_columns: dict[str, str] | None = Field(
        default=None, description="of a table of your own: {num_prefill_tokens: input, arrival_time_s: start, ...}"
    )
    trace_time_unit: Literal["s", "ms", "us", "ns"] | None = Field(
        default=None, description="of a trace whose format does not say it; such a trace asks for it"
    )
    trace_start_s: _Seconds | None = Field(
        default=None, description="a window, seconds since the first request; num_requests counts within it"
    )
    trace_end_s: _Seconds | None = Field(default=None, description="the window's end")
    trace_time_scale: _Scale = Field(default=1.0, description="gaps are multiplied by it: 0.5 is twice the rate")
    trace_length_scale: _Scale = Field(default=1.0, description="prompts and outputs are multiplied by it")
    sessions: bool = Field(
        default=False,
        description="trace: all turns of its conversations (ShareGPT; Mooncake's keys with session_id and delay; "
        "Alibaba's chats), each sent when the one before it is answered, after the recorded delay or the think time",
    )

    @model_validator(mode="after")
    def _whole(self) -> "WorkloadConfig":
        if self.arrival.kind == "trace" and self.source != "trace":
            raise ConfigError("workload.arrival.kind=trace needs workload.source=trace: only a trace has arrivals")
        needed = {"prompts": ("prompts",), "synthetic": ("num_requests", "num_prefill_tokens"), "trace": ("trace",)}
        for key in needed[self.source]:
            if getattr(self, key) is None:
                raise ConfigError(f"workload.{key} is missing: workload.source={self.source} needs it")
        self.prefill_lengths.check("workload.num_prefill_tokens")
        self.decode_lengths.check("workload.num_decode_tokens")
        if self.trace_end_s is not None and self.trace_end_s <= (self.trace_start_s or 0):
            raise ConfigError(f"workload.trace_end_s={self.trace_end_s} is not after workload.trace_start_s")
        if self.trace_time_scale != 1 and self.arrival.kind != "trace":
            raise ConfigError("workload.trace_time_scale needs workload.arrival.kind=trace: it scales recorded gaps")
        if self.sessions and self.source != "trace":
            raise ConfigError("workload.sessions needs workload.source=trace: only a trace has conversations")
        prefix = self.prefix.num_tokens
        if prefix is not None and self.source != "synthetic":
            raise ConfigError("workload.prefix needs workload.source=synthetic: other prompts are as they are")
        if prefix is not None and prefix >= self.prefill_lengths.shortest:
            raise ConfigError(
                f"workload.prefix.num_tokens={prefix} leaves nothing of a prompt of {self.prefill_lengths.shortest} "
                "tokens: raise workload.num_prefill_tokens_min"
            )
        return self

    @property
    def prefill_lengths(self) -> LengthConfig:
        """Lengths of synthetic prompts; other sources have their own."""
        return LengthConfig(
            MAX_TOKENS if self.num_prefill_tokens is None else self.num_prefill_tokens,
            self.num_prefill_tokens_min,
            self.num_prefill_tokens_median,
            self.num_prefill_tokens_sigma,
            self.num_prefill_tokens_zipf,
        )

    @property
    def decode_lengths(self) -> LengthConfig:
        """Output lengths."""
        return LengthConfig(
            self.num_decode_tokens,
            self.num_decode_tokens_min,
            self.num_decode_tokens_median,
            self.num_decode_tokens_sigma,
            self.num_decode_tokens_zipf,
        )
