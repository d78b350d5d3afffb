"""`engine.sig.json`: who vouches for an engine folder, and for which bytes.

A signature covers every file of the folder, the certificate included: the list of names, sizes and hashes is signed
with Ed25519. A file that was changed, added or taken away is found by `verify_signature`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from gms_rt.artifacts import check_format, read_json, sha256_file, write_json
from gms_rt.engine.keys import PrivateKey, PublicKey
from gms_rt.errors import ArtifactError, GmsError

SIGNATURE = "engine.sig.json"
SIGNATURE_FORMAT = "gms-rt-signature"
SIGNATURE_VERSION = 1
_FIX = "ask its author for a signed copy"


@dataclass(frozen=True)
class SignedFile:
    """One file as it was when the folder was signed."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Signature:
    """A list of files and the signature of its author; `check` says whether the signature is true."""

    folder: Path
    key: bytes  # the author's public key, as the file says
    files: tuple[SignedFile, ...]
    signature: bytes

    def check(self, key: PublicKey) -> None:
        """Refuse a list that the owner of this key did not sign."""
        where = self.folder / SIGNATURE
        if key.raw != self.key:
            raise ArtifactError(
                f"was signed by key {PublicKey(self.key).fingerprint}, not by {key.fingerprint}", where=where, fix=_FIX
            )
        if not key.has_signed(_message(self.files), self.signature):
            raise ArtifactError(
                f"was changed since it was signed, or key {key.fingerprint} did not sign it", where=where, fix=_FIX
            )


def write_signature(folder: Path, key: PrivateKey) -> Signature:
    """Sign an engine folder as it is now; an older signature is replaced. `trust.sign_engine` looks at it first."""
    files = _files(folder)
    found = Signature(folder, key.public.raw, files, key.sign(_message(files)))
    write_json(
        folder / SIGNATURE,
        {
            "format": SIGNATURE_FORMAT,
            "version": SIGNATURE_VERSION,
            "key": base64.b64encode(found.key).decode(),
            "files": [asdict(file) for file in files],
            "signature": base64.b64encode(found.signature).decode(),
        },
    )
    return found


def verify_signature(folder: Path, key: PublicKey) -> Signature:
    """Refuse a folder that the owner of this key did not sign as it is now; each refusal names the file."""
    signature = read_signature(folder)
    signature.check(key)
    signed = {file.name: file for file in signature.files}
    here = {path.name for path in folder.iterdir()} - {SIGNATURE}
    for name in sorted(signed.keys() | here):
        if name not in here:
            raise ArtifactError("was signed and is missing", where=folder / name, fix=_FIX)
        if name not in signed:
            raise ArtifactError("was added since the engine was signed", where=folder / name, fix="remove it")
        if _file(folder / name) != signed[name]:
            raise ArtifactError("was changed since it was signed", where=folder / name, fix=_FIX)
    return signature


def read_signature(folder: Path) -> Signature:
    """Read `engine.sig.json`; whether it is true is said by `Signature.check`."""
    path = folder / SIGNATURE
    if not path.is_file():
        raise ArtifactError("is not signed", where=folder, fix=f"sign it: gms-rt sign {folder} --key FILE")
    data = read_json(path)
    check_format(data, SIGNATURE_FORMAT, SIGNATURE_VERSION, where=path, fix="sign it again")
    try:
        files = tuple(SignedFile(**entry) for entry in data["files"])
        key, signature = (base64.b64decode(data[name], validate=True) for name in ("key", "signature"))
    except (LookupError, TypeError, ValueError) as error:
        raise ArtifactError(f"cannot be read ({type(error).__name__})", where=path, fix=_FIX) from error
    names = [file.name for file in files]
    if len(key) != 32 or len(signature) != 64 or not all(map(_is_plain, files)) or names != sorted(set(names)):
        raise ArtifactError("is not a list of files with a signature", where=path, fix=_FIX)
    return Signature(folder, key, files, signature)


def _is_plain(file: SignedFile) -> bool:
    return (
        isinstance(file.name, str)
        and file.name.isprintable()
        and Path(file.name).name == file.name != SIGNATURE
        and type(file.bytes) is int
        and isinstance(file.sha256, str)
        and re.fullmatch(r"[0-9a-f]{64}", file.sha256) is not None
    )


def _message(files: tuple[SignedFile, ...]) -> bytes:
    """What is signed: one line per file, in order of name. Names have no line breaks."""
    lines = [f"{SIGNATURE_FORMAT} {SIGNATURE_VERSION}", *(f"{file.sha256} {file.bytes} {file.name}" for file in files)]
    return "".join(f"{line}\n" for line in lines).encode()


def _files(folder: Path) -> tuple[SignedFile, ...]:
    return tuple(_file(path) for path in sorted(folder.iterdir(), key=lambda p: p.name) if path.name != SIGNATURE)


def _file(path: Path) -> SignedFile:
    try:
        if path.is_symlink() or not path.is_file() or not path.name.isprintable():
            raise GmsError("is not a plain file", where=path, fix="remove it: only plain files can be signed")
        return SignedFile(path.name, path.stat().st_size, sha256_file(path))
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror})", where=path) from error
