"""DICOM in: values as a viewer shows them, frames, transfer syntaxes, spacing, hostile files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.pixels import apply_voi_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from support.dicom_files import dataset, save

from gms_rt.errors import InputError, NoImageError
from gms_rt.scan import Frame, window
from gms_rt.scan.dicom import read_dicom
from gms_rt.scan.dicom_spacing import pixel_spacing

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (70, 90), np.uint8)
COLOUR = RNG.integers(0, 256, (70, 90, 3), np.uint8)
DEEP = RNG.integers(0, 3000, (70, 90), np.uint16)


def only(made: Dataset, folder: Path) -> Frame:
    frames = list(read_dicom(save(made, folder / "case.dcm")).frames)
    assert len(frames) == 1
    return frames[0]


def test_eight_bit_grey_and_colour_stay_as_stored(tmp_path: Path) -> None:
    assert np.array_equal(only(dataset(GREY), tmp_path).image, GREY)
    frame = only(dataset(COLOUR), tmp_path)
    assert np.array_equal(frame.image, COLOUR)
    assert frame.window == "8 bit as stored, RGB"


def test_planar_colour(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(COLOUR.transpose(2, 0, 1))
    made = dataset(COLOUR, PlanarConfiguration=1)
    made.PixelData = planes.tobytes()
    assert np.array_equal(only(made, tmp_path).image, COLOUR)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    frame = only(dataset(GREY, PhotometricInterpretation="MONOCHROME1"), tmp_path)
    assert np.array_equal(frame.image, 255 - GREY)
    assert "inverted" in frame.window


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_datasets_window_is_applied_as_pydicom_applies_it(function: str, tmp_path: Path) -> None:
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "VOILUTFunction": function}
    made = dataset(DEEP, "CT", WindowCenter=[40, 300], WindowWidth=[400, 1500], **tags)
    frame = only(made, tmp_path)
    viewer = np.asarray(apply_voi_lut(DEEP.astype(np.float64) - 1024, made), np.float64)
    scaled = (viewer - viewer.min()) / (viewer.max() - viewer.min()) * 255
    assert np.abs(frame.image - scaled).max() <= 1
    assert frame.window == f"window 40/400 {function} of the dataset"


def test_without_a_window_percentiles_leave_padding_out(tmp_path: Path) -> None:
    values = DEEP.astype(np.int16)
    values[:, :10] = -2000
    frame = only(dataset(values, "CT", PixelPaddingValue=-2000, RescaleSlope=2, RescaleIntercept=5), tmp_path)
    low, high = window.percentiles(values[:, 10:].astype(np.float32) * 2 + 5)
    assert frame.window == f"percentiles 0.5-99.5: {low:g} to {high:g}"
    assert not frame.image[:, :10].any()


def test_an_impossible_window_is_not_used(tmp_path: Path) -> None:
    assert "percentiles" in only(dataset(DEEP, "CT", WindowCenter=40, WindowWidth=0), tmp_path).window


def test_a_lut_of_values_of_interest(tmp_path: Path) -> None:
    item = Dataset()
    item.LUTDescriptor = [256, 0, 8]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = list(range(255, -1, -1))
    item["LUTData"].VR = "US"
    frame = only(dataset(GREY, VOILUTSequence=[item]), tmp_path)
    assert np.array_equal(frame.image, 255 - GREY)
    assert frame.window == "VOI LUT of the dataset"


def test_palette_colour(tmp_path: Path) -> None:
    made = dataset(GREY % 4, PhotometricInterpretation="PALETTE COLOR")
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 0], [9, 8, 7]], np.uint16)
    for channel, name in enumerate(("Red", "Green", "Blue")):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(made, f"{name}PaletteColorLookupTableData", (table[:, channel] * 257).astype("<u2").tobytes())
    assert np.array_equal(only(made, tmp_path).image, table[GREY % 4])


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    from pydicom.pixels import convert_color_space

    stored = convert_color_space(COLOUR, "RGB", "YBR_FULL")
    frame = only(dataset(stored, PhotometricInterpretation="YBR_FULL"), tmp_path)
    assert np.abs(frame.image.astype(int) - COLOUR).max() <= 2


@pytest.mark.parametrize(("syntax", "plugin"), [
    (RLELossless, "pydicom"),
    (JPEGLSLossless, "pyjpegls"),
    (JPEG2000Lossless, "pylibjpeg"),
], ids=["RLE", "JPEG-LS", "J2K"])  # fmt: skip
@pytest.mark.parametrize("pixels", [GREY, DEEP, COLOUR], ids=["grey", "16 bit", "rgb"])
def test_lossless_transfer_syntaxes(syntax: Any, plugin: str, pixels: Any, tmp_path: Path) -> None:
    plain = only(dataset(pixels, "CT"), tmp_path)
    made = dataset(pixels, "CT")
    made.compress(syntax, encoding_plugin=plugin)
    assert np.array_equal(only(made, tmp_path).image, plain.image)


def test_jpeg_baseline(tmp_path: Path) -> None:
    import io

    from PIL import Image
    from pydicom.encaps import encapsulate

    smooth = np.tile(np.arange(44, dtype=np.uint8) * 5, (30, 1))
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG", quality=95)
    made = dataset(smooth)
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = encapsulate([buffer.getvalue()])
    assert np.abs(only(made, tmp_path).image.astype(int) - smooth).max() <= 4


def test_lossless_jpeg(tmp_path: Path) -> None:
    gdcm = pytest.importorskip("gdcm", reason="lossless JPEG needs python-gdcm")
    plain = save(dataset(DEEP, "CT"), tmp_path / "plain.dcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "packed.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "packed.dcm").file_meta.TransferSyntaxUID == JPEGLosslessSV1
    packed, expected = read_dicom(tmp_path / "packed.dcm"), read_dicom(plain)
    assert np.array_equal(next(packed.frames).image, next(expected.frames).image)


def test_big_endian_and_a_file_without_preamble(tmp_path: Path) -> None:
    made = dataset(DEEP.byteswap(), "CT")
    made.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    made.save_as(tmp_path / "big.dcm", implicit_vr=False, little_endian=False, enforce_file_format=True)
    plain = only(dataset(DEEP, "CT"), tmp_path)
    assert np.array_equal(next(read_dicom(tmp_path / "big.dcm").frames).image, plain.image)
    bare = dataset(DEEP, "CT")
    del bare.file_meta
    bare.save_as(tmp_path / "bare.dcm", implicit_vr=True, little_endian=True)
    assert not (tmp_path / "bare.dcm").read_bytes()[128:].startswith(b"DICM")
    assert np.array_equal(next(read_dicom(tmp_path / "bare.dcm").frames).image, plain.image)
    assert ImplicitVRLittleEndian != ExplicitVRBigEndian


def test_frames_come_one_by_one_with_their_own_windows(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 900, (4, 30, 44), np.uint16)
    made = dataset(pixels, "CT", frames=4)
    groups = []
    for index in range(4):
        voi, group = Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = 100 * (index + 1), 200
        group.FrameVOILUTSequence = [voi]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [0.5, 0.25]
    shared.PixelMeasuresSequence = [measures]
    made.SharedFunctionalGroupsSequence = [shared]
    reading = read_dicom(save(made, tmp_path / "many.dcm"))
    frames = list(reading.frames)
    assert reading.multi
    assert [frame.number for frame in frames] == [1, 2, 3, 4]
    assert [frame.window.split()[1] for frame in frames] == ["100/200", "200/200", "300/200", "400/200"]
    assert all(frame.spacing == (0.5, 0.25) for frame in frames)


def region(delta: float, unit: int = 3) -> Dataset:
    made = Dataset()
    made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = unit
    made.PhysicalDeltaX, made.PhysicalDeltaY = delta, 2 * delta
    return made


@pytest.mark.parametrize(("tags", "spacing"), [
    ({"PixelSpacing": [0.5, 0.7]}, (0.5, 0.7)),
    ({"ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2)),
    ({"SequenceOfUltrasoundRegions": [region(0.01)]}, (0.2, 0.1)),
    ({"SequenceOfUltrasoundRegions": [region(0.01), region(0.01)]}, (0.2, 0.1)),
    ({"SequenceOfUltrasoundRegions": [region(0.01), region(0.02)]}, None),
    ({"SequenceOfUltrasoundRegions": [region(0.01, 4)]}, None),
    ({"PixelSpacing": [0, 0.7]}, None),
    ({}, None),
])  # fmt: skip
def test_spacing(tags: dict[str, Any], spacing: tuple[float, float] | None) -> None:
    found = pixel_spacing(dataset(GREY, **tags), 1)
    assert found == (spacing if spacing is None else pytest.approx(spacing))


@pytest.mark.parametrize("keep", [0, 50, 140, 600, -400, -2])
@pytest.mark.filterwarnings("ignore")
def test_a_cut_file_is_refused(keep: int, tmp_path: Path) -> None:
    path = save(dataset(GREY), tmp_path / "cut.dcm")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError):
        list(read_dicom(path).frames)


@pytest.mark.parametrize(("tags", "words"), [
    ({"Rows": 60000, "Columns": 60000}, "megapixels"),
    ({"Modality": "SEG"}, "Segmentation, not a scan"),
    ({"PhotometricInterpretation": "HSV"}, "HSV"),
    ({"RescaleSlope": 0, "RescaleIntercept": 0}, "impossible rescale"),
])  # fmt: skip
def test_what_cannot_be_shown_says_why(tags: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = save(dataset(GREY, **tags), tmp_path / "odd.dcm")
    with pytest.raises(InputError, match=words):
        list(read_dicom(path).frames)


def test_a_file_without_pixels_says_so(tmp_path: Path) -> None:
    made = dataset(GREY)
    for name in ("PixelData", "Rows", "Columns", "PhotometricInterpretation"):
        delattr(made, name)
    with pytest.raises(InputError, match="has no image") as caught:
        read_dicom(save(made, tmp_path / "stripped.dcm"))
    assert not isinstance(caught.value, NoImageError), "an image was meant"
    missing = dataset(GREY)
    del missing.PixelData
    with pytest.raises(InputError, match="has no pixel data"):
        list(read_dicom(save(missing, tmp_path / "gone.dcm")).frames)


def test_an_unknown_compression_is_named(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import MPEG2MPML

    made = dataset(GREY)
    made.file_meta.TransferSyntaxUID = MPEG2MPML
    made.PixelData = encapsulate([b"\0" * 100])
    with pytest.raises(InputError, match="MPEG2"):
        list(read_dicom(save(made, tmp_path / "clip.dcm")).frames)


@pytest.mark.parametrize(("uid", "words"), [
    ("1.2.840.10008.5.1.4.1.1.88.11", "has no image (Basic Text SR Storage)"),
    ("1.2.840.10008.5.1.4.1.1.481.3", "has no image (RT Structure Set Storage)"),
    ("1.2.840.10008.5.1.4.1.1.481.5", "has no image (RT Plan Storage)"),
    ("1.2.840.10008.5.1.4.1.1.9.1.1", "has no image (12-lead ECG Waveform Storage)"),
    ("1.2.840.10008.5.1.4.1.1.88.59", "has no image (Key Object Selection Document Storage)"),
    ("1.2.840.10008.5.1.4.1.1.11.1", "is a DICOM presentation state, not a scan"),
    ("1.2.840.10008.5.1.4.1.1.104.1", "is an encapsulated document, not a scan"),
    ("1.2.840.10008.5.1.4.1.1.66.4", "is a DICOM Segmentation, not a scan"),
    ("1.2.840.10008.5.1.4.1.1.481.2", "is an RT Dose, not a scan"),
    ("1.2.840.10008.1.3.10", "is a DICOMDIR (the index of a medium), not a scan"),
    ("1.3.12.2.1107.5.9.1", "has no image (SOP class 1.3.12.2.1107.5.9.1)"),
])  # fmt: skip
def test_objects_that_are_not_images_are_told_from_failures(uid: str, words: str, tmp_path: Path) -> None:
    made = dataset(GREY)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = uid
    if not any(word in words for word in ("Segmentation", "Dose")):  # those have pixels
        for name in ("PixelData", "Rows", "Columns", "PhotometricInterpretation"):
            delattr(made, name)
    if "DICOMDIR" in words:
        del made.SOPClassUID
    with pytest.raises(NoImageError) as caught:
        read_dicom(save(made, tmp_path / "object.dcm"))
    assert caught.value.what == words


def test_a_deflated_file(tmp_path: Path) -> None:
    made = dataset(DEEP, "CT")
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    plain = only(dataset(DEEP, "CT"), tmp_path)
    assert np.array_equal(only(made, tmp_path).image, plain.image)


def test_a_deflated_file_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dataset(np.zeros((1200, 1200), np.uint16), "CT")
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(made, tmp_path / "bomb.dcm")
    assert path.stat().st_size < 10_000
    monkeypatch.setattr("gms_rt.scan.dicom._MAX_INFLATED", 2 << 20)
    with pytest.raises(InputError, match="deflated from more than 2 MiB"):
        read_dicom(path)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless], ids=["J2K", "JPEG-LS"])
def test_values_whose_sign_the_codestream_does_not_have(syntax: Any, tmp_path: Path) -> None:
    # Encoded as unsigned, and said to be signed by the dataset, as some archives do.
    made = dataset(DEEP << 4, "CT", BitsStored=16)
    made.compress(syntax, encoding_plugin="pylibjpeg" if syntax == JPEG2000Lossless else "pyjpegls")
    made.PixelRepresentation = 1
    frame = only(made, tmp_path)
    signed = pydicom.dcmread(tmp_path / "case.dcm").pixel_array
    assert signed.dtype == np.int16
    assert np.array_equal(frame.image, window.by_percentiles(signed)[0])


@pytest.mark.filterwarnings("ignore:Expected explicit VR:UserWarning")
def test_a_compressed_dataset_of_implicit_vr(tmp_path: Path) -> None:
    made = dataset(COLOUR)
    made.compress(RLELossless, encoding_plugin="pydicom")
    expected = only(made, tmp_path).image
    written = DicomBytesIO()
    written.is_little_endian, written.is_implicit_VR = True, True
    made.file_meta.TransferSyntaxUID = RLELossless
    head = DicomBytesIO()
    head.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(head, made.file_meta)
    meta = made.file_meta
    del made.file_meta
    write_dataset(written, made)
    (tmp_path / "odd.dcm").write_bytes(head.getvalue() + written.getvalue())
    assert meta.TransferSyntaxUID == RLELossless
    assert np.array_equal(next(read_dicom(tmp_path / "odd.dcm").frames).image, expected)


FILLS = [
    bytes(8),
    b"\xff" * 8,
    b"\x08\0\x08\0\0\0\0\0",
    b"hello wo",
]


@pytest.mark.parametrize("start", [b"", bytes(128) + b"DICM"], ids=["bare", "with prefix"])
@pytest.mark.parametrize("fill", FILLS, ids=["zeros", "ones", "one element", "text"])
def test_a_file_of_one_thing_is_not_read_to_its_end(
    fill: bytes, start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pydicom.filereader as reader

    parsed = 0
    plain = reader.data_element_generator

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal parsed
        for element in plain(*arguments, **options):
            parsed += 1
            yield element

    monkeypatch.setattr(reader, "data_element_generator", counted)
    (tmp_path / "fill.dcm").write_bytes(start + fill * 50_000)
    with pytest.raises(InputError):
        read_dicom(tmp_path / "fill.dcm")
    assert parsed < 1000


def test_a_flipped_bit_in_an_element_that_names_the_class_is_damage(tmp_path: Path) -> None:
    path = save(dataset(np.zeros((8, 8), np.uint16)), tmp_path / "x.dcm")
    data = path.read_bytes()
    element = b"\x08\x00\x16\x00UI"
    assert data.count(element) == 1
    path.write_bytes(data.replace(element, b"\x08\x00\x16\x00WI"))
    with pytest.raises(InputError, match=r"is a damaged DICOM file \(.*Unknown Value Representation 'WI'"):
        read_dicom(path)
