"""An ONNX graph in memory: read, write, run, fold and count it."""
