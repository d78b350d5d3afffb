"""An ONNX graph in memory: read, write, run, fold and count it.

graph.py         the graph with its indices: who makes a tensor, who takes it, constants, shapes, types
read.py          a fused graph from its file, checked and normalised; what a file says of itself
write.py         to a file, large weights in a second one
edit.py          the small changes that every rewriting of a graph is made of
join.py          stage graphs chained into one, named and described
fold.py          exact folds
flips.py         a graph averages over flips by itself
finite.py        weights that are not numbers are refused
run.py           on this machine's CPU, from memory
count.py         FLOP, bytes, parameters, stages
layer_counts.py  layers by type
"""
