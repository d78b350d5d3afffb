"""One machine as a service: HTTP, a page, and one queue for all who bring images. Not for clinical use.

queue.py       one engine's queue: images wait, are batched, and are dropped when they are late
desk.py        how many requests are taken, by how many threads they are worked on, and the end without loss
deadline.py    until when an answer is wanted, and whether anybody still waits for it
refusals.py    why a request is not done: busy, late, closing, not understood
limits.py      the bounds of one service, each explained
counters.py    what is counted, as Prometheus shows it
multipart.py   bodies of several parts
packed.py      zip archives from strangers
intake.py      bytes to sources, in a folder that is gone afterwards
segment.py     a source to its results, by the same code as `gms-rt infer`
answer.py      results as JSON, PNG, DICOM SEG, NIfTI or zip
model.py       an engine that is served: its identity, its queue, its golden pictures
service.py     the models, the desk and the limits in one
accept.py      which of our formats a client prefers
http.py        bodies and errors of HTTP
guard.py       who may ask: token, Host, Origin; sizes; the access log
segment_api.py `/v1/segment`
kserve_api.py  KServe v2: `/v2/…`
monai_api.py   what 3D Slicer's MONAI Label extension calls
dicomweb_api.py  DICOMweb: STOW-RS, WADO-RS, QIDO-RS; dicom_query.py its searches
dicom_study.py DICOM instances in, DICOM SEG out, whoever brings them
dicom_store.py the results that DICOMweb keeps with `--keep`
shelf.py       scans that a client uploads first and asks about later, for a while
openapi.py     `/openapi.json`; openapi_paths.py the interfaces that others have defined
pages.py       the page's files
kept.py        what `--keep` keeps
held.py        how many bytes of strangers are held
app.py         all routes
server.py      sockets, TLS, slow clients, signals
page/          what `/` shows

The queue and the desk know nothing of HTTP: whatever else brings images uses the same two.
"""
