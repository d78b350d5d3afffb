"""From a trained model to one fused ONNX graph."""
