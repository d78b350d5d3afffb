"""A signed engine folder: any change is refused in one line, and only a trusted author's plan is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import ed25519
from support.plan_engines import PLAN, FakeRunner, plan_engine, use_fakes
from support.trees import ROOT

from gms_rt.cli.main import run
from gms_rt.engine import select, trust
from gms_rt.engine.keys import PrivateKey, create_key, read_public_key, trust_key, trusted_keys
from gms_rt.engine.manifest import read_manifest
from gms_rt.engine.signature import SIGNATURE, read_signature, verify_signature, write_signature
from gms_rt.errors import ArtifactError, GmsError, UsageError

GOLDEN = ROOT / "tests/golden/signature-v1"
AUTHOR = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fakes(monkeypatch)
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "state"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = plan_engine(tmp_path / "e")
    (made / "parity.json").write_text("{}")
    write_signature(made, AUTHOR)
    return made


def test_the_golden_signature_is_still_read_and_written(tmp_path: Path) -> None:
    key = read_public_key(GOLDEN / "author.pub")
    assert key == AUTHOR.public
    found = verify_signature(GOLDEN / "engine", key)
    assert [file.name for file in found.files] == ["engine.json", "model.onnx", "parity.json", PLAN]
    again = shutil.copytree(GOLDEN / "engine", tmp_path / "again")
    (again / SIGNATURE).unlink()
    write_signature(again, AUTHOR)
    assert (again / SIGNATURE).read_bytes() == (GOLDEN / "engine" / SIGNATURE).read_bytes()


@pytest.mark.parametrize("name", ["engine.json", "model.onnx", "parity.json", PLAN])
def test_a_flipped_bit_in_any_file_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name}: was changed since it was signed"):
        verify_signature(folder, AUTHOR.public)


def test_files_added_or_removed_are_refused(folder: Path) -> None:
    (folder / "more.txt").write_text("?")
    with pytest.raises(ArtifactError, match=r"more\.txt: was added"):
        verify_signature(folder, AUTHOR.public)
    (folder / "more.txt").unlink()
    (folder / "parity.json").unlink()
    with pytest.raises(ArtifactError, match=r"parity\.json: was signed and is missing"):
        verify_signature(folder, AUTHOR.public)


def test_what_is_not_a_plain_file_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "parity.json", tmp_path / "elsewhere.json")
    (folder / "parity.json").symlink_to(tmp_path / "elsewhere.json")
    for bad in (lambda: verify_signature(folder, AUTHOR.public), lambda: write_signature(folder, AUTHOR)):
        with pytest.raises(GmsError, match="not a plain file"):
            bad()


def test_another_key_is_refused(folder: Path) -> None:
    with pytest.raises(ArtifactError, match=f"by key {AUTHOR.public.fingerprint}, not by {OTHER.public.fingerprint}"):
        verify_signature(folder, OTHER.public)


def edited(folder: Path, edit: Callable[[dict[str, object]], object]) -> None:
    value = json.loads((folder / SIGNATURE).read_text())
    edit(value)
    (folder / SIGNATURE).write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda v: v.update(signature="A" * 86 + "=="), "was changed since it was signed"),
        (lambda v: v.update(key="A" * 43 + "="), "was signed by key"),
        (lambda v: v["files"].pop(), "was changed since it was signed"),
        (lambda v: v["files"][0].update(bytes=0), "was changed since it was signed"),
        (lambda v: v.update(version=2), "version 2"),
        (lambda v: v.update(format="zip"), "not a gms-rt-signature"),
        (lambda v: v.update(signature="!"), "cannot be read"),
        (lambda v: v.update(files=[{"name": "x"}]), "cannot be read"),
        (lambda v: v.update(files="all"), "cannot be read"),
        (lambda v: v["files"][0].update(name="../engine.json"), "not a list of files"),
        (lambda v: v["files"][0].update(name="a\nb"), "not a list of files"),
        (lambda v: v["files"].append(v["files"][0]), "not a list of files"),
        (lambda v: v["files"][0].update(sha256="0"), "not a list of files"),
        (lambda v: v.pop("key"), "cannot be read"),
    ],
)
def test_a_changed_signature_is_refused(folder: Path, edit: Callable[[dict[str, object]], object], words: str) -> None:
    edited(folder, edit)
    with pytest.raises(ArtifactError, match=words) as found:
        verify_signature(folder, AUTHOR.public)
    assert "\n" not in found.value.line()


def test_a_damaged_engine_is_not_signed(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(ArtifactError, match="was changed since it was built"):
        trust.sign_engine(folder, AUTHOR)


def test_nobody_signs_a_foreign_plan_by_accident(folder: Path) -> None:
    """An own build keeps the plans that it found in its place; they do not become the builder's by that."""
    with pytest.raises(UsageError, match=rf"{PLAN}: was not built on this machine.*--trust-plans"):
        trust.sign_engine(folder, OTHER)
    assert trust.sign_engine(folder, OTHER, trust_plans=True).key == OTHER.public.raw
    trust_key(OTHER.public)
    assert trust.sign_engine(folder, AUTHOR).key == AUTHOR.public.raw


def test_the_plan_of_a_trusted_author_is_loaded(folder: Path) -> None:
    plan = read_manifest(folder).plans[0]
    assert "not signed by a trusted key" in trust.plan_trust(folder, plan).reason
    trust_key(OTHER.public)
    assert "not signed by a trusted key" in trust.plan_trust(folder, plan).reason
    trust_key(AUTHOR.public)
    assert trust.plan_trust(folder, plan).reason == f"is signed by the trusted key {AUTHOR.public.fingerprint}"
    with select.load(folder):
        assert FakeRunner.opened[-1].content == b"native code"


def test_a_signature_vouches_for_its_own_plan_and_manifest_only(folder: Path, tmp_path: Path) -> None:
    trust_key(AUTHOR.public)
    other = plan_engine(tmp_path / "other", content=b"other code!")
    shutil.copy(folder / SIGNATURE, other)
    with select.load(other) as engine:
        assert engine.runner.info.backend == "cpu" and "is not what was signed" in engine.notice
    (folder / "engine.json").write_text((folder / "engine.json").read_text() + " ")
    with select.load(folder) as engine:
        assert engine.runner.info.backend == "cpu" and "engine.json: is not what was signed" in engine.notice
    edited(folder, lambda v: v.update(signature="A" * 86 + "=="))
    with select.load(folder) as engine:
        assert engine.runner.info.backend == "cpu" and "was changed since it was signed" in engine.notice


def test_keys_are_private_and_are_not_overwritten(tmp_path: Path) -> None:
    public = create_key(tmp_path / "a.key")
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    assert read_public_key(tmp_path / "a.key.pub") == public
    with pytest.raises(UsageError, match="exists"):
        create_key(tmp_path / "a.key")
    with pytest.raises(UsageError, match="not a public key"):
        read_public_key(tmp_path / "a.key")


def test_the_verbs_as_a_user_calls_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, key = plan_engine(tmp_path / "e"), tmp_path / "ward.key"

    def say(*arguments: object) -> tuple[int, str]:
        code = run([*map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    assert say("verify", folder)[0] == 2  # no key yet
    assert say("keys", "create", key)[0] == 0
    assert say("verify", folder, "--key", f"{key}.pub") == (
        1, f"gms-rt: {folder}: is not signed; sign it: gms-rt sign {folder} --key FILE\n",
    )  # fmt: skip
    assert say("sign", folder, "--key", key)[0] == 2
    trust.remember_plan(folder, read_manifest(folder).plans[0].sha256)
    assert "3 files signed" in say("sign", folder, "--key", key)[1]
    assert say("verify", folder, "--key", f"{key}.pub")[0] == 0
    assert say("keys", "list") == (0, "no key is trusted\n")
    assert say("keys", "trust", f"{key}.pub")[0] == 0
    name = trusted_keys()[0].fingerprint
    assert say("keys", "list") == (0, f"{name}\n")
    assert say("verify", folder)[0] == 0
    (folder / "model.onnx").write_bytes(b"changed")
    code, text = say("verify", folder)
    assert code == 1 and "was changed since it was signed" in text and text.count("\n") == 1
    assert say("sign", folder, "--key", f"{key}.pub")[0] == 2
    assert say("keys", "remove", name)[0] == 0
    assert say("keys", "remove", name)[0] == 2
    assert trusted_keys() == []


def test_reading_needs_no_extra(folder: Path) -> None:
    assert read_signature(folder).key == AUTHOR.public.raw
