"""From an FP32 graph to a typed graph: what is int8, fp16, fp32, and the Dice gate that decides."""

from __future__ import annotations

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
TARGETS = ("cpu", "tensorrt", "tensorrt-rtx")
