"""From a trained model to one fused ONNX graph.

fuse.py           a run or a model in memory to a graph file and its reference
student.py        the same of a student
comparator.py     the same of a comparator
options.py        size, batch, opset, reference, flips
finish.py         the end of all three: flips, description, reference, file
reference.py      the pictures whose masks are stored with a graph
torch_to_onnx.py  one torch module to ONNX
"""
