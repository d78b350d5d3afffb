"""Archives: `infer` on many workers of one machine or of a cluster, each source once. Not for clinical use.

places.py     where sources are: this machine's folders, or any file system that fsspec knows
remote.py     sources of such a file system: listing them, bringing one here
chunk.py      sources that travel together as text, and what comes back
attempts.py   how often a chunk was begun, so that a file that kills its worker is found
worker.py     one engine that segments chunks by the code of `infer`
processes.py  workers as processes of this machine
ray_data.py   workers as actors of a Ray cluster, fed by Ray Data
cores.py      which cores a worker has where nobody gives them out
stamps.py     how sources looked when they were segmented, so that a later run need not read them
table.py      cases.parquet
run.py        a whole run: what is to do, who does it, what came of it

Only paths go to the workers and only rows come back: pixels are read, segmented and written where the worker is.
"""
