"""The BIDS layout: valid names that never meet, the files that describe them, and a whole run."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.infer_engine import brightness_engine

from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.infer.bids import bids_stem

nibabel = pytest.importorskip("nibabel")
ANAT = re.compile(
    r"sub-(?P<sub>[0-9a-zA-Z]+)/(?:ses-(?P<ses>[0-9a-zA-Z]+)/)?(?P<type>anat|func|dwi)/sub-(?P=sub)(?:_ses-(?P=ses))?"
    r"(?:_task-\w+?)?(?:_acq-\w+?)?(?:_ce-\w+?)?(?:_rec-\w+?)?(?:_dir-\w+?)?(?:_run-\d+)?(?:_echo-\d+)?"
    r"(?:_part-\w+?)?(?:_space-\w+?)?(?:_chunk-\w+?)?(?:_res-\w+?)?_desc-[0-9a-zA-Z]+"
)


@pytest.mark.parametrize(
    ("case", "stem"),
    [
        ("sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_desc-gmsrtT1w"),
        ("sub-01/ses-a/anat/sub-01_ses-a_run-2_T2w", "sub-01/ses-a/anat/sub-01_ses-a_run-2_desc-gmsrtT2w"),
        ("sub-01_T1w", "sub-01/anat/sub-01_desc-gmsrtT1w"),
        ("sub-01/func/sub-01_task-rest_dir-AP_bold", "sub-01/func/sub-01_task-rest_dir-AP_desc-gmsrtbold"),
        ("sub-01_task-rest_bold", "sub-01/func/sub-01_task-rest_desc-gmsrtbold"),
        ("sub-01_dir-AP_dwi", "sub-01/dwi/sub-01_dir-AP_desc-gmsrtdwi"),
        # Not allowed in the name of a segmentation: part of what describes it.
        ("sub-01/anat/sub-01_inv-1_MP2RAGE", "sub-01/anat/sub-01_desc-gmsrtMP2RAGEinv1"),
        ("sub-01/anat/sub-01_desc-preproc_T1w", "sub-01/anat/sub-01_desc-gmsrtT1wpreproc"),
        ("sub-01/pet/sub-01_trc-FDG_pet", "sub-01/anat/sub-01_desc-gmsrtpettrcFDG"),
        # In the order of BIDS, whatever the scan's is.
        ("sub-01/anat/sub-01_run-1_acq-fast_T1w", "sub-01/anat/sub-01_acq-fast_run-1_desc-gmsrtT1w"),
        ("brain", "sub-brain/anat/sub-brain_desc-gmsrt"),
        (f"sub-{199 * '1'}_T1w", f"sub-{'sub' + 37 * '1'}X8771a0f8/anat/sub-{'sub' + 37 * '1'}X8771a0f8_desc-gmsrt"),
    ],
)
def test_names_keep_what_a_segmentation_may_have(case: str, stem: str) -> None:
    assert bids_stem(case) == stem
    assert ANAT.fullmatch(stem)


NAMES = st.text(st.sampled_from("ab0-_./ é"), min_size=1, max_size=12) | st.builds(
    lambda keys, suffix: "sub-1_" + "".join(f"{key}-1_" for key in keys) + suffix,
    st.sets(st.sampled_from(["ses", "run", "acq", "inv", "mod", "echo", "dir", "task"]), max_size=3).map(sorted),
    st.sampled_from(["T1w", "T2w", "bold", "dwi", "x"]),
)


@settings(deadline=None)
@given(st.sets(st.tuples(st.sampled_from(["one", "two/anat", "two"]), NAMES), max_size=8))
def test_every_name_is_valid_and_none_is_two_scans(cases: set[tuple[str, str]]) -> None:
    stems = {case: bids_stem("/".join(case)) for case in cases}
    assert all(ANAT.fullmatch(stem) for stem in stems.values())
    # What differs in the data set or in the name has another name, except that "two" and "two/anat" may be one place.
    for one, stem in stems.items():
        for other, another in stems.items():
            if one != other and (one[1] != other[1] or "one" in (one[0], other[0])):
                assert stem != another


def test_a_name_that_two_scans_claim_goes_to_one_and_the_other_says_so(tmp_path: Path, scans: Path) -> None:
    (scans / "sub-01_T1w.nii.gz").write_bytes((scans / "sub-01/anat/sub-01_T1w.nii.gz").read_bytes())
    out = tmp_path / "out"
    run(scans, out, layout="bids", overlays=False, contours=False)
    rows = list(csv.DictReader((out / "cases.csv").read_text().splitlines()))
    told = {row["source"] for row in rows if "another scan has its BIDS name" in row["note"]}
    assert len(told) == 1 and told < {"sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz"}
    assert "sub-01/anat/sub-01_desc-gmsrtT1w_dseg.nii.gz" in tree(out)


def run(folder: Path, out: Path, **options: Any) -> None:
    engine = brightness_engine(out.parent / "engine")
    with OutFolder(out) as held:
        summary = run_cases(find_sources([str(folder)]), InferJob(engine, held, InferOptions(**options), workers=2))
    assert summary.failed == 0


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A BIDS folder of two scans, and the values in them."""
    values = np.random.default_rng(7).integers(0, 256, (7, 5, 3)).astype(np.int16)
    for name in ("sub-01/anat/sub-01_T1w", "sub-01/anat/sub-01_T2w"):
        path = tmp_path / "raw" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, np.diag([0.5, 0.75, 2, 1])), path)
    return tmp_path / "raw"


def test_a_run_writes_a_derivative(tmp_path: Path, scans: Path) -> None:
    out = tmp_path / "out"
    run(scans, out, layout="bids", probabilities=True, overlays=False, contours=False)
    stems = ["sub-01/anat/sub-01_desc-gmsrtT1w", "sub-01/anat/sub-01_desc-gmsrtT2w"]
    endings = ["_dseg.nii.gz", "_dseg.json", "_dseg.tsv", "_probseg.nii.gz", "_probseg.json"]
    assert {name for name in tree(out) if name.startswith("sub-")} == {s + e for s in stems for e in endings}
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "gms-rt"
    assert description["DatasetLinks"] == {"raw": scans.as_uri()}
    sidecar = json.loads((out / f"{stems[0]}_dseg.json").read_text())
    assert sidecar["Manual"] is False and "Not for clinical use" in sidecar["Description"]
    assert sidecar["Threshold"] == 0.5 and len(sidecar["EngineManifestSHA256"]) == 64
    assert (out / f"{stems[0]}_dseg.tsv").read_text() == "index\tname\tcolor\n1\tSegmented region\t#ff4040\n"
    mask = nibabel.load(out / f"{stems[0]}_dseg.nii.gz")
    assert np.array_equal(mask.affine, np.diag([0.5, 0.75, 2, 1]))
    assert mask.shape == (7, 5, 3) and np.asanyarray(mask.dataobj).any()
    # A later run with other options replaces them all.
    run(scans, out, layout="bids", nifti=True, overlays=False, contours=False)
    assert {name for name in tree(out) if name.startswith("sub-")} == {s + e for s in stems for e in endings[:3]}


def test_the_official_validator_finds_no_error(tmp_path: Path, scans: Path) -> None:
    program = shutil.which("bids-validator-deno") or shutil.which("bids-validator")
    if program is None:
        pytest.skip("the BIDS validator is not installed")
    (scans / "sub-02_trc-FDG_pet.nii.gz").write_bytes((scans / "sub-01/anat/sub-01_T1w.nii.gz").read_bytes())
    run(scans, tmp_path / "out", layout="bids", probabilities=True)
    done = subprocess.run([program, str(tmp_path / "out"), "--format", "json"], capture_output=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_masks_over_nifti_are_written_unless_they_are_not_wanted(tmp_path: Path, scans: Path) -> None:
    run(scans, tmp_path / "out", overlays=False, contours=False)
    names = {name for name in tree(tmp_path / "out") if "nifti" in name}
    assert names == {f"nifti/sub-01/anat/sub-01_{kind}_dseg.nii.gz" for kind in ("T1w", "T2w")}
    # Voxel by voxel what the PNG of each slice shows.
    import cv2

    mask = np.asanyarray(nibabel.load(tmp_path / "out/nifti/sub-01/anat/sub-01_T1w_dseg.nii.gz").dataobj)
    for index in range(3):
        png = cv2.imread(
            str(tmp_path / f"out/masks/sub-01/anat/sub-01_T1w.frame-{index + 1:05d}.png"), cv2.IMREAD_UNCHANGED
        )
        assert np.array_equal(mask[:, :, index].T == 1, png == 255)
    # A name too long for its ending is cut, as all names are.
    (tmp_path / "long").mkdir()
    (scans / "sub-01/anat/sub-01_T1w.nii.gz").rename(tmp_path / "long" / f"{'n' * 248}.nii.gz")
    run(tmp_path / "long", tmp_path / "cut", overlays=False, contours=False)
    (name,) = (path.name for path in (tmp_path / "cut/nifti").iterdir())
    assert len(name) == 255 and name.endswith("_dseg.nii.gz") and "~" in name
    run(scans, tmp_path / "none", nifti=False, overlays=False, contours=False)
    assert not any("nii" in name for name in tree(tmp_path / "none"))
