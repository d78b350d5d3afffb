"""Other runtimes to time with the engines, each in a process of its own: the client here, the server there."""

TORCH_KINDS = ("torch-eager", "torch-channels-last", "torch-compile")  # they open a trained run
GRAPH_KINDS = ("onnxruntime", "openvino")  # these open a graph: a fused one, or any segmentation model
