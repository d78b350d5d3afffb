"""How good the masks are against the truth. No torch in here.

choice.py       which cases are taken
dataset.py      every case measured: cases.csv, summary.json, the worst cases as pictures
summary.py      numbers over cases, with intervals and a policy for empty masks
comparison.py   two evaluations of the same cases, paired
published.py    the paper's own numbers
"""
