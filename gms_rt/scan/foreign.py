"""Files of a format that is not read: what they are and what to do, so that none of them is called damaged."""

from __future__ import annotations

from gms_rt.errors import InputError

_PICTURE = "save it as PNG or TIFF"
_VOLUME = "convert it to NIfTI or DICOM"
_SLIDE = "save the region to segment as TIFF or PNG"
_PACKED = "unpack it first"
# What the first bytes are, what that is called, and what helps.
_STARTS: tuple[tuple[bytes, str, str | None], ...] = (
    (b"GIF8", "GIF picture", _PICTURE),
    (b"8BPS", "Photoshop file", _PICTURE),
    (b"%PDF", "PDF document", "save its picture as PNG or TIFF"),
    (b"%!PS", "PostScript file", _PICTURE),
    (b"\xc5\xd0\xd3\xc6", "PostScript file", _PICTURE),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 picture", _PICTURE),
    (b"\xff\x4f\xff\x51", "JPEG 2000 codestream", _PICTURE),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL picture", _PICTURE),
    (b"\xff\x0a", "JPEG XL picture", _PICTURE),
    (b"v/1\x01", "OpenEXR picture", _PICTURE),
    (b"#?RADIANCE", "Radiance HDR picture", _PICTURE),
    (b"DDS ", "DDS texture", _PICTURE),
    (b"qoif", "QOI picture", _PICTURE),
    (b"\0\0\x01\0", "Windows icon", _PICTURE),
    (b"icns", "macOS icon", _PICTURE),
    (b"II\xbc", "JPEG XR picture", _PICTURE),
    (b"NRRD000", "NRRD volume", _VOLUME),
    (b"ObjectType = Image", "MetaImage volume", _VOLUME),
    (b"NDims = ", "MetaImage volume", _VOLUME),
    (b"# vtk DataFile", "VTK file", _VOLUME),
    (b"CDF\x01", "MINC or netCDF file", _VOLUME),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file", _VOLUME),
    (b"SIMPLE  =", "FITS file", _VOLUME),
    (b"\x93NUMPY", "NumPy array", _VOLUME),
    (b"MATLAB 5.0 MAT-file", "MATLAB file", _VOLUME),
    (b"ZISRAWFILE", "Zeiss CZI slide", _SLIDE),
    (b"PK\x03\x04", "ZIP archive", _PACKED),
    (b"\x1f\x8b", "gzip archive", _PACKED),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip archive", _PACKED),
    (b"Rar!", "RAR archive", _PACKED),
    (b"BZh", "bzip2 archive", _PACKED),
    (b"\xfd7zXZ\0", "xz archive", _PACKED),
    (b"OggS", "Ogg file", None),
    (b"\x7fELF", "program", None),
)
_MAGIC = tuple(magic for magic, _, _ in _STARTS)
_BRANDS = {b"avif": "AVIF picture", b"avis": "AVIF picture"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "HEIC picture"
)
# Slides are TIFFs or JPEGs in part: what could be read of them is a thumbnail, or far too large.
_SLIDES = (".svs", ".ndpi", ".scn", ".bif", ".mrxs", ".vms", ".vmu", ".vsi")
_NAMES = {".mgz": ("MGH volume", _VOLUME), ".mgh": ("MGH volume", _VOLUME), ".hdr": ("header without pixels", _VOLUME)}


def refuse_foreign(start: bytes, name: str) -> None:
    """Raise an InputError that names the format, if the first bytes or the name's ending are those of one not read."""
    lower = name.lower()
    if lower.endswith(_SLIDES):
        raise InputError("is a whole-slide image, which is not supported", fix=_SLIDE)
    ending = next(filter(lower.endswith, _NAMES), None)
    if ending is not None:
        raise _not_supported(*_NAMES[ending])
    brand = _BRANDS.get(start[8:12]) if start[4:8] == b"ftyp" else None
    known = start.startswith(_MAGIC)  # one look for all of them: hardly any file is one
    found = next((what, fix) for magic, what, fix in _STARTS if start.startswith(magic)) if known else None
    if brand is not None:
        found = brand, _PICTURE
    if found is None and start[:1] == b"P" and start[1:2] in b"1234567fF" and start[2:3].isspace():
        found = "Netpbm picture", _PICTURE
    if found is None and start.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<":
        found = ("SVG drawing", _PICTURE) if b"<svg" in start.lower() else ("text file in XML or HTML", None)
    if found is not None:
        raise _not_supported(*found)


def _not_supported(what: str, fix: str | None) -> InputError:
    article = "an" if what.startswith(("AVIF", "HDF", "MGH", "NRRD", "Ogg", "OpenEXR", "SVG", "xz")) else "a"
    return InputError(f"is {article} {what}, which is not supported", fix=fix)
