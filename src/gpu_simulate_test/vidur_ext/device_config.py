"""Our devices in Vidur's registry: a CPU is one, as a GPU is."""

from dataclasses import field, make_dataclass
from typing import Any

from vidur.config.device_sku_config import BaseDeviceSKUConfig
from vidur.config.node_sku_config import BaseNodeSKUConfig

from gpu_simulate_test.config.schema import HardwareConfig

_registered: dict[str, type] = {}  # Python keeps subclasses weakly; these must stay


def register_device(hardware: HardwareConfig) -> None:
    """Make Vidur know `hardware` by ``vidur_device`` and its node by ``vidur_network_device``."""
    _register(
        BaseDeviceSKUConfig,
        hardware.vidur_device,
        {"fp16_tflops": hardware.fp16_tflops, "total_memory_gb": hardware.total_memory_gb},
    )
    _register(BaseNodeSKUConfig, hardware.vidur_network_device, {"num_devices_per_node": 1})


def _register(base: Any, name: str, values: dict[str, int]) -> None:
    if any(str(known.get_type()) == name for known in base.__subclasses__()):
        return
    _registered[name] = make_dataclass(
        f"Registered_{name}",
        [(key, int, field(default=value)) for key, value in values.items()],
        bases=(base,),
        namespace={"get_type": staticmethod(lambda: name)},
    )
