"""What accelerators could do at best: dense bfloat16 matrix products with float32 sums, and memory, from their makers' data sheets.

Figures with "structured sparsity", which the sheets print large, are twice these and of no use in training.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from scmulan.errors import RecipeError, nearest

CORE_TFLOPS = 0.1
"""A processor core: 32 float32 operations a cycle (two AVX2 units that multiply and add 8 numbers) at 3 GHz. bfloat16 units do more."""


def multiplies_bf16(device: str) -> bool:
    """Whether hardware multiplies bfloat16 itself; a processor that does not takes up to 65 times as long as in float32."""
    if device.startswith("cuda"):
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


@dataclass(frozen=True)
class Device:
    """An accelerator: its peak in TFLOP/s (dense bfloat16), its memory in GB (10^9 bytes; None where not known) and where that stands."""

    name: str
    peak_tflops: float
    memory_gb: float | None
    source: str


DEVICES = {
    device.name: device
    for device in (
        Device("a10g", 70.0, 24, "AWS and NVIDIA A10G; the A10 data sheet has 125 at its higher power"),
        Device("a100-40", 312.0, 40, "NVIDIA A100 data sheet"),
        Device("a100", 312.0, 80, "NVIDIA A100 data sheet, 80 GB"),
        Device("l4", 121.0, 24, "NVIDIA L4 data sheet, 242 with sparsity"),
        Device("l40s", 362.0, 48, "NVIDIA L40S data sheet"),
        Device("rtx3090", 71.0, 24, "NVIDIA GA102 whitepaper, float32 sums"),
        Device("rtx4090", 165.2, 24, "NVIDIA Ada whitepaper, float32 sums"),
        Device("h100", 989.4, 80, "NVIDIA H100 data sheet, SXM, 1,979 with sparsity"),
        Device("h100-pcie", 756.0, 80, "NVIDIA H100 data sheet, PCIe, 1,513 with sparsity"),
        Device("h200", 989.4, 141, "NVIDIA H200 data sheet, SXM"),
        Device("b200", 2250.0, 180, "NVIDIA DGX B200 data sheet, 36 PFLOP/s for eight with sparsity"),
        Device("mi300x", 1307.4, 192, "AMD Instinct MI300X data sheet"),
    )
}


def device_of(name: str) -> Device:
    """An accelerator by name, ``cpu`` for this machine's processor, or one of a peak given as a number of TFLOP/s.

    Raises
    ------
    RecipeError
        For another name, with the nearest.
    """
    if name == "cpu":
        cores = os.cpu_count() or 1
        return Device("cpu", CORE_TFLOPS * cores, None, f"{cores} cores of {CORE_TFLOPS} TFLOP/s (AVX2 at 3 GHz)")
    if name.lower() in DEVICES:
        return DEVICES[name.lower()]
    try:
        peak = float(name)
    except ValueError:
        known = ["cpu", *DEVICES]
        raise RecipeError(f"--gpu {name!r}: needed one of {', '.join(known)}, or its peak in TFLOP/s{nearest(name, known)}") from None
    if not 0 < peak < float("inf"):
        raise RecipeError(f"--gpu {name}: needed a peak of more than 0 TFLOP/s")
    return Device(f"{peak:g} TFLOP/s", peak, None, "as given")
