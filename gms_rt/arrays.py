"""The array types that pass between rooms."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

U8: TypeAlias = NDArray[np.uint8]  # pictures H×W×3 (RGB) or H×W, masks of 0 and 255, probabilities of 0 to 255
F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
