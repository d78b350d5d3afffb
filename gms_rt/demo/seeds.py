"""Which phantom serves what: every range of seeds, once. No two ranges meet, so nothing is judged on what it learned.

`tests/demo/test_seeds.py` checks it.
"""

from __future__ import annotations

# The bundled model: what it was trained on, judged on for its card, and compared with PyTorch on.
TRAINING_SEEDS = range(2_000)
HELD_OUT_SEEDS = range(1_000_000, 1_000_200)
REFERENCE_SEEDS = range(2_000_000, 2_000_006)  # PyTorch's passes over them are a third of a large model's export

SAMPLE_SEEDS = range(3_000_000, 3_002_000)  # the bundled samples: each starts a hundred further and takes the first fit

UNSEEN_SEEDS = range(4_000_000, 4_000_040)  # tests segment them

# Builds: ranges are taken from the first, masks compared on the second; the bundled INT8 recipe was found on the third.
CALIBRATION_SEEDS = range(6_000_000, 6_000_024)
GATE_SEEDS = range(6_100_000, 6_100_064)
SEARCH_SEEDS = range(6_200_000, 6_200_120)
