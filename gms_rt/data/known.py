"""The five data sets of the paper: where to get them, how the downloaded folder looks, under which terms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownDataset:
    """One public data set; `layout` describes the downloaded folder."""

    key: str
    title: str
    subject: str
    cases: int
    site: str
    layout: str
    terms: str


KNOWN = (
    KnownDataset(
        "bus",
        "BUS (dataset B)",
        "breast ultrasound, lesions",
        163,
        "http://www2.docm.mmu.ac.uk/STAFF/M.Yap/dataset.php",
        "original/000001.png, GT/000001.png",
        "on request from the authors, research only",
    ),
    KnownDataset(
        "busi",
        "BUSI",
        "breast ultrasound, lesions and normals",
        780,
        "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        "{benign,malignant,normal}/benign (1).png, benign (1)_mask.png, benign (1)_mask_1.png",
        "see the site",
    ),
    KnownDataset(
        "glas",
        "GlaS",
        "colon histology, glands",
        165,
        "https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/",
        "train_1.bmp, train_1_anno.bmp, testA_1.bmp, testB_1.bmp, …",
        "research only",
    ),
    KnownDataset(
        "ham10000",
        "HAM10000",
        "dermoscopy, skin lesions",
        10015,
        "https://dataverse.harvard.edu/dataset.xhtml?persistentId=doi:10.7910/DVN/DBW86T",
        "HAM10000_images_part_{1,2}/ISIC_….jpg, HAM10000_segmentations_lesion_tschandl/ISIC_…_segmentation.png",
        "CC BY-NC",
    ),
    KnownDataset(
        "kvasir-instrument",
        "Kvasir-Instrument",
        "endoscopy, tools",
        590,
        "https://datasets.simula.no/kvasir-instrument/",
        "images/….jpg, masks/….png, train.txt, test.txt",
        "research and education",
    ),
)
