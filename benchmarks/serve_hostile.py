"""Malformed requests for `benchmarks/serve.py`: valid ones of every interface, damaged at random, always the same ones.

A request is damaged where a stranger or a bad line would damage it: bytes changed, bodies cut, lengths that lie, parts
without an end, JSON of the wrong shape, DICOM and NIfTI headers with other numbers, archives that promise too much,
heads without end, bytes that are no HTTP.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Malformed:
    """The bytes of a request, and whether they are all that it says it has, so that an answer will come."""

    sent: bytes
    whole: bool
    kind: str


@dataclass(frozen=True)
class _Request:
    """A request before it is damaged."""

    path: str
    body: bytes
    head: str = ""


class Hostile:
    """Malformed requests from one seed, around one picture and one model's name."""

    def __init__(self, seed: int, picture: bytes, model: str) -> None:
        self._random = random.Random(seed)
        self._picture = picture
        self._model = model
        self._dicom = [_dicom(number, compressed=number == 2) for number in range(3)]
        self._kinds: dict[str, Callable[[], _Request]] = {
            "picture": lambda: _Request("/v1/segment", self._damaged(picture)),
            "dicom": self._one_dicom,
            "series": self._series,
            "nifti": self._nifti,
            "zip": self._zip,
            "form": self._form,
            "stow": self._stow,
            "kserve": self._kserve,
            "kserve binary": self._kserve_binary,
            "monai": self._monai,
            "head": self._head,
            "path": self._path,
        }

    def next(self) -> Malformed:
        """One more request."""
        pick = self._random
        if pick.random() < 0.05:
            noise = pick.randbytes(pick.randint(1, 3000)) + b"\r\n\r\n"
            return Malformed(noise, True, "noise")
        kind = pick.choice(list(self._kinds))
        request = self._kinds[kind]()
        body, framing, whole = self._framed(request.body)
        head = f"POST {request.path} HTTP/1.1\r\nHost: localhost\r\n{request.head}{framing}Connection: close\r\n\r\n"
        sent = head.encode("latin-1", "replace") + body
        if pick.random() < 0.2:
            return Malformed(sent[: pick.randrange(len(sent))], False, kind)
        return Malformed(sent, whole, kind)

    def _framed(self, body: bytes) -> tuple[bytes, str, bool]:
        """The body as it is sent, what the head says of its length, and whether that is so."""
        chance = self._random.random()
        if chance < 0.8:
            return body, f"Content-Length: {len(body)}\r\n", True
        if chance < 0.9:
            length = self._random.choice((0, 5, len(body) * 2, -1, 10**14, "x"))
            return body, f"Content-Length: {length}\r\n", length == len(body)
        pieces = [body[at : at + 700] for at in range(0, len(body), 700)]
        chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        both = "Content-Length: 3\r\n" if chance > 0.95 else ""
        return self._damaged(chunked, 0.5), f"{both}Transfer-Encoding: chunked\r\n", False

    def _damaged(self, data: bytes, often: float = 0.9) -> bytes:
        """Some bytes changed, a piece cut out, repeated or cut off; now and then none."""
        pick = self._random
        if not data or pick.random() > often:
            return data
        made = bytearray(data)
        for _ in range(pick.choice((0, 1, 1, 2, 5, 30))):
            made[pick.randrange(len(made))] = pick.choice((0, 1, 0x7F, 0x80, 0xFF, pick.randrange(256)))
        place, length = pick.randrange(len(made)), pick.randint(1, 300)
        chance = pick.random()
        if chance < 0.2:
            del made[place : place + length]
        elif chance < 0.3:
            made[place:place] = made[place : place + length]
        elif chance < 0.5:
            del made[place:]
        return bytes(made)

    def _one_dicom(self) -> _Request:
        accept = self._random.choice(("application/json", "application/json", "image/png", "application/dicom"))
        return _Request(
            "/v1/segment?images=1", self._damaged(self._random.choice(self._dicom)), f"Accept: {accept}\r\n"
        )

    def _files(self) -> dict[str, bytes]:
        """A few files by name, some of them damaged, some named by someone who means harm."""
        names = (
            "a.dcm",
            "b.dcm",
            "../../c.dcm",
            "n" * 300 + ".dcm",
            "d.png",
            "d.nii",
            "\u00e9\n\0.dcm",
            ".dcm",
            "a.dcm/x",
        )
        pool = [*self._dicom, *self._dicom, self._picture, b""]
        return {name: self._damaged(self._random.choice(pool), 0.7) for name in self._random.sample(names, 3)}

    def _series(self) -> _Request:
        files = {f"{number}.dcm": self._damaged(_dicom(number), 0.7) for number in range(self._random.randint(1, 4))}
        accept = self._random.choice(("application/dicom", "application/json", "application/x-nifti"))
        return _Request("/v1/segment", _zipped(files), f"Accept: {accept}\r\n")

    def _nifti(self) -> _Request:
        data = self._damaged(_nifti_header()) + self._random.randbytes(4 * 5 * 3)
        if self._random.random() < 0.5:
            data = self._damaged(gzip.compress(data, 1), 0.4)
        return _Request("/v1/segment", data, "Accept: application/x-nifti\r\n")

    def _zip(self) -> _Request:
        pick = self._random
        kind = pick.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        files = self._files() if pick.random() < 0.8 else {"zeros.png": bytes(pick.choice((1, 2_000_000)))}
        return _Request("/v1/segment", self._damaged(_zipped(files, kind)), "Accept: application/json\r\n")

    def _form(self) -> _Request:
        kind = self._random.choice(("multipart/form-data", "multipart/related", "Multipart/Form-Data"))
        mark = self._random.choice(("x", '"x"', "y", "", "x" * 300))
        return _Request(
            "/v1/segment", self._damaged(_form(self._files())), f"Content-Type: {kind}; boundary={mark}\r\n"
        )

    def _stow(self) -> _Request:
        pick = self._random
        parts = [self._damaged(_dicom(number), 0.7) for number in range(pick.randint(0, 4))]
        body = b"".join(b"--x\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % part for part in parts) + b"--x--\r\n"
        path = pick.choice(
            ("/dicom-web/studies", "/dicom-web/studies/1.2.3", "/dicom-web/studies/..%2f..", "/dicom-web/x")
        )
        head = 'Content-Type: multipart/related; type="application/dicom"; boundary=x\r\n'
        return _Request(path, self._damaged(body, 0.5), head)

    def _tensor(self) -> dict[str, object]:
        pick = self._random
        odd = (None, -1, 0, 10**400, 1e400, "x" * 2000, [], {}, [[]], True, "NaN", [1, 2, 2, 3], [1, 9, 9, 3])
        image: dict[str, object] = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [7] * 12}
        value: dict[str, object] = {
            "inputs": [image],
            "id": "7",
            "parameters": {"timeout": 10**6},
            "outputs": [{"name": "mask"}],
        }
        for holder in (image, value):
            if pick.random() < 0.7:
                holder[pick.choice(list(holder))] = pick.choice(odd)
        if pick.random() < 0.2:
            image["data"] = [pick.choice(odd) for _ in range(12)]
        return value

    def _kserve(self) -> _Request:
        text = json.dumps(self._tensor()).encode()
        if self._random.random() < 0.1:
            text = self._random.choice((b"[" * 50_000, b'{"inputs": [' + b"[]," * 20_000, b"\xff\xfe{}", b"1" * 9000))
        return _Request(f"/v2/models/{self._model}/infer", self._damaged(text, 0.4))

    def _kserve_binary(self) -> _Request:
        value = self._tensor()
        inputs = value["inputs"]
        if isinstance(inputs, list) and inputs and isinstance(inputs[0], dict):
            inputs[0] |= {"parameters": {"binary_data_size": self._random.choice((12, 0, -1, 10**30, "x"))}}
        text = json.dumps(value).encode()
        said = self._random.choice((len(text), len(text) - 1, 0, -1, 10**30, "9" * 5000, "x"))
        head = f"Inference-Header-Content-Length: {said}\r\n"
        return _Request(f"/v2/models/{self._model}/infer", self._damaged(text + bytes(12), 0.3), head)

    def _monai(self) -> _Request:
        pick = self._random
        if pick.random() < 0.2:
            return _Request("/auth/token", self._damaged(b"username=a&password=" + b"b" * pick.randint(0, 9000)))
        path = pick.choice(
            (f"/infer/{self._model}?output=all", "/infer/x", f"/infer/{self._model}?session_id=1&image=%00")
        )
        head = "Content-Type: multipart/form-data; boundary=x\r\n"
        return _Request(path, self._damaged(_form(self._files(), "file"), 0.7), head)

    def _head(self) -> _Request:
        name = "".join(chr(self._random.randrange(97, 123)) for _ in range(self._random.randint(1, 20)))
        value = self._random.choice(("a" * 70_000, "\x01\x02", '";=,' * 3000, "1e999", "nan", "\xff" * 100))
        known = self._random.choice(("Accept", "Content-Type", "X-Request-Timeout", "Origin", "Host", "Cookie", name))
        return _Request(
            "/v1/segment", self._picture[:400], f"{known}: {value}\r\n" * self._random.choice((1, 1, 1, 200))
        )

    def _path(self) -> _Request:
        text = bytes(self._random.randrange(33, 127) for _ in range(40)).decode()
        start = self._random.choice(("/", "/v1/segment?", "/page/", "/v2/models/", "/dicom-web/", "//", "http://x/"))
        return _Request(start + text, self._picture[:100])


def _zipped(files: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _form(files: dict[str, bytes], field: str = "f") -> bytes:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files.items()
    ]
    return b"".join(parts) + b"--x--\r\n"


def _dicom(number: int, *, compressed: bool = False) -> bytes:
    """A slice of a series, 20×24."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = CTImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{number + 1}"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    made.Modality, made.PatientName, made.PatientID, made.SeriesNumber = "CT", "Test^Person", "P", 3
    made.InstanceNumber, made.ImagePositionPatient = number + 1, [0, 0, 2.5 * number]
    made.ImageOrientationPatient, made.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.5, 0.8]
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 20, 24, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.WindowCenter, made.WindowWidth = 2048, 4096
    made.PixelData = (np.arange(480, dtype=np.uint16) * 8).tobytes()
    if compressed:
        made.compress(RLELossless)
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _nifti_header() -> bytes:
    """The header of a volume of 5×4×3 bytes."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, 5, 4, 3, 1, 1, 1, 1)
    struct.pack_into("<hh", head, 70, 2, 8)
    struct.pack_into("<8f", head, 76, 1, 2, 3, 4, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    head[344:348] = b"n+1\0"
    return bytes(head)
