"""From files and folders of scans to masks that people can use. Not for clinical use.

sources.py      what is to be segmented, in a stable order, and the name each result gets
options.py      how masks are made and what is written
predict.py      images to probability maps: whole, in tiles (tiles.py), averaged over flips
case.py         one source on its way: its rows, its files
postprocess.py  largest region, holes, small regions
confidence.py   one number for how decided the model was
measure.py      a mask in numbers: a row of cases.csv
contours.py     a mask as polygons
result.py       all results of one source
stack.py        the masks of a source, kept small until all are in
writers.py      the files that need all frames of a source, one entry each
dicom_seg.py    masks as a DICOM Segmentation
overlay_video.py  the frames with their masks drawn in
nifti_mask.py   masks and probabilities as NIfTI, over NIfTI or DICOM (dicom_affine.py)
bids.py         names and descriptions of a BIDS derivative
outputs.py      the output folder: lock, names, whole-or-nothing files
tables.py       cases.csv and series.csv, which grow
earlier.py      whether results of an earlier run may be replaced
journal.py      what is finished, so that an interrupted run goes on
channel.py      bounded queues between threads
pipeline.py     decode, infer and write, overlapping
summary.py      the run in one screen and in summary.json
tuning.py       a process as a run wants it
run.py          a whole run
watch.py        a folder in which scans keep arriving
"""

from __future__ import annotations

from gms_rt.infer.options import InferOptions
from gms_rt.infer.outputs import OutFolder
from gms_rt.infer.run import InferJob, run_cases
from gms_rt.infer.sources import find_sources, with_series
from gms_rt.infer.watch import watch

__all__ = ["InferJob", "InferOptions", "OutFolder", "find_sources", "run_cases", "watch", "with_series"]
