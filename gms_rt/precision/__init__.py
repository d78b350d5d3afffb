"""From an FP32 graph to a typed graph: what is int8, fp16, fp32, and the Dice gate that decides."""
