"""The paper's tables and figures, run here: `benchmarks/paper/run`.

order.py     what one call asks for, and which data sets are there
systems.py   the systems, and how each is trained by the verbs of gms-rt
jobs.py      the work as jobs: trainings, tests, cross-domain tests, ablations, reconstructions
runner.py    does jobs, each once; killed and started again, it goes on
plan.py      how long the work will take
cells.py     what the jobs found, or why there is nothing
tables.py    tables 1 to 5 and the reconstruction, as rows: published, and run here
writing.py   rows as Markdown, CSV and JSON
figures.py   the parameter figure and figure 2
engines.py   the same models as engines: latency, size, INT8 and its gate
compare.py   GMS and others at equal training time: the work, and its values
compare_page.py  docs/compare.md from those values
compare_reading.py  what their rows say, in sentences
"""
