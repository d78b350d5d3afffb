"""From a trained model to one fused ONNX graph.

fuse.py           a run or a model in memory to a graph file and its reference
torch_to_onnx.py  one torch module to ONNX
"""
