"""What the demo says of its engines on unseen phantoms: the first is the teacher of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.scale_runs import mean_engine

from gms_rt.cli.unseen_phantoms import unseen_scores
from gms_rt.demo.phantoms import phantom
from gms_rt.demo.seeds import UNSEEN_SEEDS


def test_each_engine_is_compared_with_the_truth_and_with_the_first(tmp_path: Path) -> None:
    found = unseen_scores([mean_engine(tmp_path / "large"), mean_engine(tmp_path / "small")])
    large, small = found["large"], found["small"]
    assert (large.teacher, small.teacher) == (None, 1.0)
    assert large.phantoms == sum(bool(phantom(seed, 224, 224).lesions) for seed in UNSEEN_SEEDS[:24])
    assert large.truth == small.truth
    # Its probability is the brightness, so that its masks are bad and yet never empty.
    assert 0 < large.truth < 0.5
    shown = phantom(UNSEEN_SEEDS[0], 224, 224)
    assert np.array_equal(shown.mask, large.true_mask) and np.array_equal(shown.rgb, large.image)
