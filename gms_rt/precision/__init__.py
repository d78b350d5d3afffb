"""From an FP32 graph to a typed graph: what is int8, fp16, fp32, and the Dice gate that decides.

recipe_from_graph.py  the whole way: calibrate, decide, judge
learned.py            the recipe of a student that was trained for INT8
recipe.py             `precision.json`, and its application to a graph
images.py             calibration and gate images
fp32_masks.py         the masks that the gate compares with
gate.py               the Dice gate
ranges.py             what passes through the tensors
calibrators.py        where INT8 clips
floating.py           FP16 and BF16: what stays FP32, and the typing
equalise.py           channels evened out before INT8
int8.py               the INT8 graph of a target
rounding.py           weights rounded together
concat_as_sum.py      around a bug of OpenVINO with Concat
upsampling.py         INT8 upsampling as a CPU does it fast
cpu_choice.py         the arithmetic in which this CPU runs the typed graph
int8_probe.py         whether this CPU runs INT8 at all
damage.py             what an arithmetic does to the masks
blocks.py, ranking.py, search.py  which convolutions go back to the higher precision
"""

from __future__ import annotations

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
TARGETS = ("cpu", "tensorrt", "tensorrt-rtx")
