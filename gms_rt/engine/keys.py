"""Ed25519 keys as PEM files, and those of authors whose engines the user trusts, kept in the state folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt.artifacts import sha256_bytes, write_bytes
from gms_rt.engine.state import state_folder
from gms_rt.errors import MissingExtraError, UsageError


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with."""

    raw: bytes  # the 32 bytes of the key

    @property
    def fingerprint(self) -> str:
        """A short name: the beginning of its SHA-256."""
        return sha256_bytes(self.raw)[:16]

    def pem(self) -> bytes:
        """The key as OpenSSL writes it."""
        kinds = _serialization()
        key = _ed25519().Ed25519PublicKey.from_public_bytes(self.raw)
        pem: bytes = key.public_bytes(kinds.Encoding.PEM, kinds.PublicFormat.SubjectPublicKeyInfo)
        return pem

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether the owner of this key signed a message."""
        from cryptography.exceptions import InvalidSignature

        try:
            _ed25519().Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """A key to sign with; it never leaves its file."""

    key: Any

    @property
    def public(self) -> PublicKey:
        """The key that others check with."""
        kinds = _serialization()
        return PublicKey(self.key.public_key().public_bytes(kinds.Encoding.Raw, kinds.PublicFormat.Raw))

    def sign(self, message: bytes) -> bytes:
        """The signature of a message."""
        signature: bytes = self.key.sign(message)
        return signature


def create_key(file: Path) -> PublicKey:
    """Write a new private key, readable for this user only, and its public key next to it as FILE.pub."""
    kinds = _serialization()
    key = _ed25519().Ed25519PrivateKey.generate()
    pem = key.private_bytes(kinds.Encoding.PEM, kinds.PrivateFormat.PKCS8, kinds.NoEncryption())
    public = PrivateKey(key).public
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(pem)
    except FileExistsError as error:
        raise UsageError("exists", where=file, fix="choose another name for the new key") from error
    except OSError as error:
        raise UsageError(f"cannot be written ({error.strerror})", where=file) from error
    write_bytes(file.with_name(f"{file.name}.pub"), public.pem())
    return public


def read_private_key(file: Path) -> PrivateKey:
    """A private key from its PEM file (PKCS 8, no password)."""
    kinds = _serialization()
    content = _content(file)
    try:
        key = kinds.load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise UsageError("is not a private key without a password", where=file, fix=_MAKE) from error
    if not isinstance(key, _ed25519().Ed25519PrivateKey):
        raise UsageError("is not an Ed25519 key", where=file, fix=_MAKE)
    return PrivateKey(key)


def read_public_key(file: Path) -> PublicKey:
    """A public key from its PEM file."""
    kinds = _serialization()
    content = _content(file)
    try:
        key = kinds.load_pem_public_key(content)
    except ValueError as error:
        raise UsageError("is not a public key", where=file, fix=_MAKE) from error
    if not isinstance(key, _ed25519().Ed25519PublicKey):
        raise UsageError("is not an Ed25519 key", where=file, fix=_MAKE)
    return PublicKey(key.public_bytes(kinds.Encoding.Raw, kinds.PublicFormat.Raw))


def trust_key(key: PublicKey) -> Path:
    """Trust the owner of a key from now on: engines that they sign are loaded, plans included."""
    place = state_folder("keys") / f"{key.fingerprint}.pem"
    write_bytes(place, key.pem())
    return place


def distrust_key(fingerprint: str) -> None:
    """Trust a key no longer."""
    if fingerprint not in {key.fingerprint for key in trusted_keys()}:
        raise UsageError("is not a trusted key", where=fingerprint, fix="see gms-rt keys list")
    (state_folder("keys") / f"{fingerprint}.pem").unlink()


def trusted_keys() -> list[PublicKey]:
    """The keys that the user trusts."""
    return [read_public_key(file) for file in sorted(state_folder("keys", make=False).glob("*.pem"))]


_MAKE = "make one with gms-rt keys create, or openssl genpkey -algorithm ed25519"


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=file) from error


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtraError("signing and checking signatures", "signing") from error
    return ed25519


def _serialization() -> Any:
    _ed25519()
    from cryptography.hazmat.primitives import serialization

    return serialization
