"""How good the masks are against the truth. No torch in here.

choice.py          which cases are taken
measure.py         one case, by one model or by the mean of several
case_result.py     what was measured of it, and the table cases.csv
dataset.py         every case: cases.csv, summary.json, the worst cases as pictures (gallery.py)
summary.py         numbers over cases, with intervals and a policy for empty masks
comparison.py      two evaluations of the same cases, paired
reconstruction.py  what a tokenizer alone loses of images and masks
published.py       the paper's own numbers, those of GMS; published_systems.py: those of every system it names
"""
