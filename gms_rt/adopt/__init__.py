"""Somebody else's segmentation model becomes a graph of ours: uint8 picture in, uint8 probability out.

options.py   what the file does not say of itself: normalisation, activation, channels, size
foreign.py   read an ONNX file, refuse what cannot be adopted, fix its sizes
wrap.py      pixel arithmetic before and behind the model
answers.py   what the model itself answers, for the reference
adopt.py     a file in, a graph and its reference out

Everything after that (build, gate, bench, infer, parity, serve) works on the graph as on one from `gms-rt export`.
"""
