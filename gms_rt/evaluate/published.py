"""The paper's own numbers (Huo et al., Generative Medical Segmentation), for tables that show them next to ours.

DSC and IoU in percent, HD95 in pixels at 224x224, in the papers' column order. The paper does not say how its HD95
counts a missed lesion.
"""

from __future__ import annotations

from typing import NamedTuple


class Numbers(NamedTuple):
    """One published result; table 3 gives no IoU."""

    dsc: float
    iou: float | None
    hd95: float


# Tables 1 and 2: GMS.
GMS = {
    "bus": Numbers(88.42, 80.56, 6.79),
    "busi": Numbers(81.43, 72.58, 19.50),
    "glas": Numbers(88.98, 81.16, 16.32),
    "ham10000": Numbers(94.11, 89.68, 9.32),
    "kvasir-instrument": Numbers(94.24, 90.02, 7.03),
}

# Table 3: trained on the first, tested on the second.
CROSS = {("busi", "bus"): Numbers(80.31, None, 18.55), ("bus", "busi"): Numbers(61.60, None, 85.25)}

# Table 4: which losses.
LOSS = {
    "latent": {
        "busi": Numbers(80.25, 71.26, 21.57),
        "ham10000": Numbers(93.92, 89.41, 9.95),
        "kvasir-instrument": Numbers(92.93, 88.28, 10.21),
    },
    "dice": {
        "busi": Numbers(78.75, 69.87, 24.78),
        "ham10000": Numbers(93.64, 88.99, 10.27),
        "kvasir-instrument": Numbers(93.00, 88.47, 10.68),
    },
    "both": {name: GMS[name] for name in ("busi", "ham10000", "kvasir-instrument")},
}

# Table 5: which tokenizer.
TOKENIZER = {
    "vq": {
        "busi": Numbers(79.23, 70.34, 24.57),
        "ham10000": Numbers(92.77, 87.61, 13.34),
        "kvasir-instrument": Numbers(92.47, 88.31, 9.73),
    },
    "sd-vae": LOSS["both"],
}

_SPELLINGS = {"kvasir": "kvasir-instrument", "kvasirinstrument": "kvasir-instrument", "ham": "ham10000"}


def key_of(dataset: str) -> str:
    """A data set's name as these tables spell it.

    >>> key_of("Kvasir_Instrument"), key_of("BUSI")
    ('kvasir-instrument', 'busi')
    """
    plain = dataset.lower().replace("_", "-")
    return _SPELLINGS.get(plain.replace("-", ""), plain)
