"""Engines that run: selection, the CPU and TensorRT runners, the binding of the C library."""
