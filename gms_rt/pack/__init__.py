"""An engine as a ready-made folder for a host that people already run: `gms-rt pack ENGINE --for HOST --out DIR`.

pack.py        the folders: what every one holds, and what its host adds
hosts.py       the hosts by name
host.py        what a host is; templates, versions
contents.py    an engine, read and verified once for all folders
openvino.py, onnxruntime.py, triton.py, …   one file per host
templates/     the texts: clients, checks, READMEs

Pixels go in and probabilities come out as uint8, so no host needs pre- or post-processing, and an answer can be
compared byte for byte: every folder has `golden.npz` with the engine's own answers, and `check.py` that asks the host.
"""
