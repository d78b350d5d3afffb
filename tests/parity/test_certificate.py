"""The certificate says what was found, and can be computed again."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from support.bench_runner import ThresholdRunner, engine_folder, opener, replaced

from gms_rt.engine.golden import read_golden
from gms_rt.errors import ArtifactError, DeviceError, UsageError
from gms_rt.parity import certificate as parity
from gms_rt.parity.verify import verify_certificate
from gms_rt.precision.gate import Gate
from gms_rt.statistics import bootstrap, bootstrap_ratio, median


@pytest.fixture
def loads(monkeypatch):
    """Let `certify` open folders with chosen runners."""

    def use(**runners):
        monkeypatch.setattr("gms_rt.parity.certificate.load", opener(**runners))

    return use


def test_equal_masks_pass_and_the_file_holds_what_was_returned(tmp_path, loads):
    folder = engine_folder(tmp_path / "e")
    loads()
    certificate = parity.certify(folder)
    assert certificate["verdict"] == "pass"
    assert certificate["reasons"] == []
    assert certificate["summary"]["mean"] == 1.0
    assert certificate["summary"]["flipped"] == 0
    assert {case["hd95"] for case in certificate["cases"]} == {0.0}
    assert [case["name"] for case in certificate["cases"]] == [f"disc-{i}" for i in range(6)]
    assert json.loads((folder / "parity.json").read_text()) == certificate
    assert parity.read_certificate(folder / "parity.json") == certificate


def test_a_wrong_mask_fails_with_its_figures(tmp_path, loads):
    folder = engine_folder(tmp_path / "e")
    loads(e=ThresholdRunner(shift=3))
    certificate = parity.certify(folder)
    assert certificate["verdict"] == "fail"
    worst = min(certificate["cases"], key=lambda case: case["dice"])
    assert certificate["summary"]["worst"] == worst["name"]
    assert worst["dice"] < 0.8
    # A shift of three pixels moves every surface point at most three.
    assert 1.0 < worst["hd95"] <= 3.0
    assert worst["flipped"] > 0
    assert worst["truth_dice"] < worst["truth_dice_reference"] == 1.0
    assert worst["truth_hd95_change"] == pytest.approx(worst["truth_hd95"])
    assert any(worst["name"] in reason for reason in certificate["reasons"])
    low, high = certificate["summary"]["interval"]["low"], certificate["summary"]["interval"]["high"]
    assert low <= certificate["summary"]["mean"] <= high


def test_an_empty_mask_against_a_full_one_has_no_finite_distance(tmp_path, loads):
    folder = engine_folder(tmp_path / "e")
    loads(e=ThresholdRunner(gain=0.0))
    certificate = parity.certify(folder)
    assert certificate["summary"]["mean"] == 0.0
    assert certificate["summary"]["hd95_max"] is None
    assert all(case["hd95"] is None for case in certificate["cases"])


def test_references_without_foreground_prove_nothing(tmp_path, loads):
    folder = engine_folder(tmp_path / "e", truth=False)
    images = np.zeros((2, 32, 32, 3), np.uint8)
    np.savez(folder / "golden.npz", images=images, probabilities=images[..., 0])
    replaced(folder, files={})
    loads()
    certificate = parity.certify(folder)
    assert certificate["summary"]["mean"] == 1.0
    assert certificate["verdict"] == "fail"
    assert "nothing was proven" in certificate["reasons"][0]


def test_the_gate_is_the_callers(tmp_path, loads):
    folder = engine_folder(tmp_path / "e")
    loads(e=ThresholdRunner(shift=1))
    assert parity.certify(folder)["verdict"] == "fail"
    loads(e=ThresholdRunner(shift=1))
    assert parity.certify(folder, gate=Gate(0.7, 0.6))["verdict"] == "pass"
    loads()
    with pytest.raises(UsageError, match="gate"):
        parity.certify(folder, gate=Gate(1.5))


def test_a_changed_golden_file_is_refused(tmp_path, loads):
    folder = engine_folder(tmp_path / "e")
    loads()
    images = np.zeros((1, 32, 32, 3), np.uint8)
    np.savez(folder / "golden.npz", images=images, probabilities=images[..., 0])
    with pytest.raises(ArtifactError, match="hash differs"):
        parity.certify(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 broken",
        {"images": np.zeros((1, 4, 4, 3), np.uint8)},
        {"images": np.zeros((1, 4, 4, 3), np.uint8), "probabilities": np.zeros((2, 4, 4), np.uint8)},
        {"images": np.zeros((1, 4, 4, 3), np.float32), "probabilities": np.zeros((1, 4, 4), np.uint8)},
        {"images": np.zeros((0, 4, 4, 3), np.uint8), "probabilities": np.zeros((0, 4, 4), np.uint8)},
        {"images": np.array([object()]), "probabilities": np.zeros((1, 4, 4), np.uint8)},
    ],
)
def test_damaged_golden_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "golden.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    with pytest.raises(ArtifactError, match=r"golden\.npz"):
        read_golden(path)


def test_verify_holds_for_the_same_engine(tmp_path, loads):
    folder = engine_folder(tmp_path / "e")
    loads()
    parity.certify(folder)
    loads()
    found = verify_certificate(folder / "parity.json")
    assert found.holds
    assert found.largest_dice_difference == 0.0


@pytest.mark.parametrize("forgery", ["case", "mean", "verdict", "missing case"])
def test_verify_finds_a_forged_certificate(tmp_path, loads, forgery):
    folder = engine_folder(tmp_path / "e")
    loads(e=ThresholdRunner(shift=2))
    certificate = parity.certify(folder)
    if forgery == "case":
        certificate["cases"][0]["dice"] = 1.0
    elif forgery == "mean":
        certificate["summary"]["mean"] = 0.999
    elif forgery == "verdict":
        certificate["verdict"] = "pass"
    else:
        del certificate["cases"][0]
    (folder / "parity.json").write_text(json.dumps(certificate))
    loads(e=ThresholdRunner(shift=2))
    found = verify_certificate(folder / "parity.json")
    assert not found.holds
    assert found.differences


@pytest.mark.parametrize("value", [[1], "1", None, True, {}, 10**400, float("nan")])
def test_verify_takes_no_other_value_for_a_figure(tmp_path, loads, value):
    folder = engine_folder(tmp_path / "e")
    loads()
    certificate = parity.certify(folder)
    for place in (certificate["cases"][0], certificate["summary"]):
        key = "dice" if "dice" in place else "mean"
        before, place[key] = place[key], value
        (folder / "parity.json").write_text(json.dumps(certificate))
        loads()
        found = verify_certificate(folder / "parity.json")
        assert len(found.differences) == 1 and "Dice was" in found.differences[0]
        place[key] = before
    certificate["cases"][0]["name"] = value
    (folder / "parity.json").write_text(json.dumps(certificate))
    loads()
    assert "their names differ" in verify_certificate(folder / "parity.json").differences[0]


def test_verify_notices_a_rebuilt_engine(tmp_path, loads):
    folder = engine_folder(tmp_path / "e")
    loads()
    parity.certify(folder)
    replaced(folder, created="2026-02-02T00:00:00+00:00")
    loads()
    found = verify_certificate(folder / "parity.json")
    assert [line for line in found.differences if "rebuilt" in line]


def test_verify_refuses_a_certificate_without_a_gate(tmp_path, loads):
    folder = engine_folder(tmp_path / "e")
    loads()
    certificate = parity.certify(folder)
    for gate in ({}, {"mean": "high", "min": 0.9}, {"mean": None, "min": None}):
        (folder / "parity.json").write_text(json.dumps(certificate | {"gate": gate}))
        with pytest.raises(ArtifactError, match="no gate"):
            verify_certificate(folder / "parity.json")


def test_verify_refuses_another_device_and_other_references(tmp_path, loads):
    folder = engine_folder(tmp_path / "e")
    loads()
    certificate = parity.certify(folder)
    certificate["compared"]["device"] = "another processor"
    (folder / "parity.json").write_text(json.dumps(certificate))
    loads()
    with pytest.raises(DeviceError, match="another processor"):
        verify_certificate(folder / "parity.json")
    certificate["reference"]["sha256"] = "0" * 64
    (folder / "parity.json").write_text(json.dumps(certificate))
    with pytest.raises(ArtifactError, match="other reference masks"):
        verify_certificate(folder / "parity.json")


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "gms-rt-parity", "version": 99}', "not json",
                                  '{"format": "gms-rt-parity", "version": 1}'])  # fmt: skip
def test_foreign_certificates_are_refused(tmp_path, text):
    path = tmp_path / "parity.json"
    path.write_text(text)
    with pytest.raises(ArtifactError):
        parity.read_certificate(path)


def test_bootstrap_is_repeatable_and_covers_the_mean():
    values = np.random.default_rng(3).normal(0.98, 0.01, 40)
    first, second = bootstrap(values), bootstrap(values)
    assert first == second
    # The normal approximation for the mean of forty samples.
    half = 1.96 * values.std() / math.sqrt(40)
    assert first.low == pytest.approx(values.mean() - half, abs=5e-4)
    assert first.high == pytest.approx(values.mean() + half, abs=5e-4)


def test_bootstrap_of_nothing_is_refused():
    for values in ([], [math.nan], [math.inf]):
        with pytest.raises(UsageError):
            bootstrap(values)
    with pytest.raises(UsageError):
        bootstrap_ratio([1.0], [0.0], median)
