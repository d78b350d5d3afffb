"""Classes from TOML, dcmqi's JSON and stored values; colours as DICOM stores them; the examples' codes are real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trees import ROOT

from gms_rt.artifacts import write_json
from gms_rt.class_lists import classes_from_file, classes_from_run, classes_from_values, classes_value
from gms_rt.classes import DEFAULT_CLASSES, Code, SegmentClass
from gms_rt.colours import cielab_from_rgb, rgb_from_cielab
from gms_rt.demo.bundled import DEMO_RUN
from gms_rt.errors import ConfigError

EXAMPLES = sorted((ROOT / "examples" / "classes").glob("*.toml"))
LESION = Code("52988006", "SCT", "Lesion")
# As dcmqi's own web form writes it, shortened.
DCMQI: dict[str, Any] = {
    "@schema": "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/seg-schema.json#",
    "ContentCreatorName": "Reader1",
    "SeriesDescription": "Segmentation",
    "segmentAttributes": [
        [
            {
                "labelID": 2,
                "SegmentDescription": "Left kidney",
                "SegmentAlgorithmType": "SEMIAUTOMATIC",
                "SegmentedPropertyCategoryCodeSequence": {
                    "CodeValue": "123037004",
                    "CodingSchemeDesignator": "SCT",
                    "CodeMeaning": "Anatomical Structure",
                },
                "SegmentedPropertyTypeCodeSequence": {
                    "CodeValue": "64033007",
                    "CodingSchemeDesignator": "SCT",
                    "CodeMeaning": "Kidney",
                },
                "SegmentedPropertyTypeModifierCodeSequence": {
                    "CodeValue": "7771000",
                    "CodingSchemeDesignator": "SCT",
                    "CodeMeaning": "Left",
                },
                "recommendedDisplayRGBValue": [185, 102, 83],
            },
            {
                "labelID": 1,
                "SegmentLabel": "Lesion",
                "SegmentDescription": "Lesion in the liver",
                "SegmentedPropertyCategoryCodeSequence": {
                    "CodeValue": "49755003",
                    "CodingSchemeDesignator": "SCT",
                    "CodeMeaning": "Morphologically Abnormal Structure",
                },
                "SegmentedPropertyTypeCodeSequence": {
                    "CodeValue": "52988006",
                    "CodingSchemeDesignator": "SCT",
                    "CodeMeaning": "Lesion",
                },
                "AnatomicRegionSequence": {
                    "CodeValue": "10200004",
                    "CodingSchemeDesignator": "SCT",
                    "CodeMeaning": "Liver",
                },
            },
        ]
    ],
}


def toml(folder: Path, text: str) -> Path:
    path = folder / "classes.toml"
    path.write_text(text)
    return path


def test_a_toml_file_gives_classes_in_its_order(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        """
        [[class]]
        name = "Lesion"
        type = { value = "52988006", scheme = "SCT", meaning = "Lesion" }
        anatomy = { value = "76752008", scheme = "SCT", meaning = "Breast" }
        anatomy_modifier = { value = "7771000", scheme = "SCT", meaning = "Left" }
        colour = "#FF8000"
        [[class]]
        name = "Cyst"
        description = "Filled with fluid"
        """,
    )
    first, second = classes_from_file(path)
    assert first.kind == LESION
    assert first.category == DEFAULT_CLASSES[0].category
    assert first.anatomy_modifier == Code("7771000", "SCT", "Left")
    assert first.colour == (255, 128, 0)
    assert second == SegmentClass("Cyst", description="Filled with fluid")


def test_dcmqi_metainfo_is_read_in_the_order_of_its_labels(tmp_path: Path) -> None:
    write_json(tmp_path / "meta.json", DCMQI)
    first, second = classes_from_file(tmp_path / "meta.json")
    assert (first.name, first.description, first.kind) == ("Lesion", "Lesion in the liver", LESION)
    assert first.anatomy == Code("10200004", "SCT", "Liver")
    assert first.colour == DEFAULT_CLASSES[0].colour
    assert (second.name, second.description, second.colour) == ("Left kidney", "", (185, 102, 83))
    assert second.kind_modifier == Code("7771000", "SCT", "Left")


CODES = st.builds(
    Code, st.from_regex(r"[0-9A-Z-]{1,16}", fullmatch=True), st.just("SCT"), st.sampled_from(["a", "b c"])
)
CLASSES = st.builds(
    SegmentClass,
    name=st.from_regex(r"[A-Za-zäé]{1,20}", fullmatch=True),
    category=CODES,
    kind=CODES,
    anatomy=CODES,
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    description=st.from_regex(r"[A-Za-z]{0,20}", fullmatch=True),
    kind_modifier=st.none() | CODES,
    anatomy_modifier=st.none() | CODES,
)


@settings(deadline=None)
@given(st.lists(CLASSES, min_size=1, max_size=4, unique_by=lambda each: each.name))
def test_stored_classes_come_back(classes: list[SegmentClass]) -> None:
    value = json.loads(json.dumps(classes_value(classes)))
    assert classes_from_values(value["classes"], where="here") == tuple(classes)


def test_what_is_stored_has_this_form() -> None:
    """Runs, graphs and engines of today are read by programs of tomorrow."""
    each = SegmentClass("Cyst", kind=LESION, anatomy=Code("76752008", "SCT", "Breast"), colour=(1, 2, 255))
    assert classes_value([each]) == {
        "classes": [
            {
                "name": "Cyst",
                "category": {"value": "309825002", "scheme": "SCT", "meaning": "Spatial and Relational Concept"},
                "type": {"value": "52988006", "scheme": "SCT", "meaning": "Lesion"},
                "anatomy": {"value": "76752008", "scheme": "SCT", "meaning": "Breast"},
                "colour": "#0102ff",
            }
        ]
    }


def test_a_run_names_its_classes_or_none(tmp_path: Path) -> None:
    assert classes_from_run(tmp_path) == ()
    write_json(tmp_path / "classes.json", classes_value([SegmentClass("Cyst")]))
    assert classes_from_run(tmp_path) == (SegmentClass("Cyst"),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no 'class'"),
        ("klass = 1", "has no 'class'"),
        ("klass = 1\n[[class]]\nname = 'a'", "unknown key 'klass'"),
        ("[class]\nname = 'a'", "not a list of 1 to 255 classes"),
        ("class = []", "not a list of 1 to 255 classes"),
        ("class = [3]", "class 1: is not a table"),
        ("[[class]]\ncolour = '#ff4040'", "class 1: lacks the key 'name'"),
        ("[[class]]\nname = 'a'\nkolour = 1", "class 1: unknown key 'kolour'; known keys: name,"),
        ("[[class]]\nname = ' '", "class 1: name is empty"),
        ("[[class]]\nname = 3", "class 1: name is not text"),
        (f"[[class]]\nname = '{'a' * 65}'", "65 characters, DICOM allows 64"),
        ('[[class]]\nname = "a\\\\b"', "characters that DICOM does not allow"),
        ('[[class]]\nname = "a\\nb"', "characters that DICOM does not allow"),
        ("[[class]]\nname = 'a'\n[[class]]\nname = 'a'", "two classes are named 'a'"),
        ("[[class]]\nname = 'a'\ncolour = 'red'", "class 1: colour: 'red' is not a colour"),
        ("[[class]]\nname = 'a'\ncolour = [1, 2, 256]", "is not a colour"),
        ("[[class]]\nname = 'a'\ncolour = [true, 2, 6]", "is not a colour"),
        ("[[class]]\nname = 'a'\ntype = 'Lesion'", "class 1: type"),
        ("[[class]]\nname = 'a'\ntype = { value = '1', scheme = 'SCT' }", "class 1: type: lacks the key 'meaning'"),
        ("[[class]]\nname = 'a'\ntype = { value = '', scheme = 'SCT', meaning = 'b' }", "type: value is empty"),
        (
            "[[class]]\nname = 'a'\nanatomy_modifier = { value = '1', scheme = 'SCT', meaning = 'b' }",
            "class 1: has anatomy_modifier without anatomy",
        ),
        ("[[class", "is not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_toml_file_is_told_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        classes_from_file(path)
    assert words in caught.value.line()
    assert str(path) in caught.value.line()


def broken(**changes: object) -> dict[str, Any]:
    """dcmqi's example with keys of its first segment changed; None takes a key away."""
    value = json.loads(json.dumps(DCMQI))
    segment = value["segmentAttributes"][0][0]
    segment.update(changes)
    value["segmentAttributes"][0][0] = {key: v for key, v in segment.items() if v is not None}
    return dict(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"segmentAttributes": 3}, "not a list of lists"),
        ({"segmentAttributes": [{}]}, "not a list of lists"),
        ({"segmentAttributes": [[], []]}, "describes 2 label files"),
        ({"segmentAttributes": [[]]}, "not a list of 1 to 255"),
        ({"segmentAttributes": [["a"]]}, "segment that is not a table"),
        (broken(labelID=3), "labelIDs [3, 1]"),
        (broken(labelID=True), "labelIDs [True, 1]"),
        (broken(labelID=None), "labelIDs [None, 1]"),
        (broken(SegmentedPropertyTypeCodeSequence=None), "labelID 2: lacks the key 'SegmentedPropertyTypeCode"),
        (broken(SegmentedPropertyTypeCodeSequence=[]), "is not a code with CodeValue"),
        (broken(SegmentDescription=5), "name is not text"),
        (broken(recommendedDisplayRGBValue=[0, 0]), "is not a colour"),
        ({"classes": [{"name": "a"}], "more": 1}, "unknown key 'more'"),
        ({"name": "a"}, "has no 'classes'"),
    ],
)
def test_what_is_wrong_in_a_json_file_is_told_with_its_place(tmp_path: Path, value: object, words: str) -> None:
    path = tmp_path / "classes.json"
    write_json(path, value)
    with pytest.raises(ConfigError) as caught:
        classes_from_file(path)
    assert words in caught.value.line()
    assert str(path) in caught.value.line()


def test_a_file_that_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("Lesion\n")
    with pytest.raises(ConfigError, match=r"is not JSON .*give a TOML file or dcmqi's metainfo JSON"):
        classes_from_file(tmp_path / "classes.txt")


@pytest.mark.parametrize("path", [*EXAMPLES, DEMO_RUN / "classes.json"], ids=lambda path: path.stem)
def test_codes_that_come_with_the_program_are_those_of_the_code_dictionaries(path: Path) -> None:
    concepts = pytest.importorskip("pydicom.sr._concepts_dict").concepts
    meanings: dict[tuple[str, str], set[str]] = {}
    for scheme in ("SCT", "DCM"):
        for spelled in concepts[scheme].values():
            for value, (meaning, _) in spelled.items():
                meanings.setdefault((scheme, value), set()).add(meaning)
    for each in (*classes_from_file(path), *DEFAULT_CLASSES):
        for code in (each.category, each.kind, each.anatomy):
            if code is not None:
                assert code.meaning in meanings[code.scheme, code.value]


def test_there_is_an_example_for_each_data_set() -> None:
    assert [path.stem for path in EXAMPLES] == ["breast-lesion", "gland", "instrument", "skin-lesion"]


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # L*, a*, b* as published for sRGB's corners with D65
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((128, 128, 128), (53.59, 0.0, 0.0)),
    ],
)
def test_cielab_has_the_known_values(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    first, second, third = cielab_from_rgb(rgb)
    assert (first / 655.35, second / 257 - 128, third / 257 - 128) == pytest.approx(lab, abs=0.02)


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_every_colour_survives_dicom_and_is_highdicoms(colour: tuple[int, int, int]) -> None:
    colours = pytest.importorskip("highdicom.color")
    stored = cielab_from_rgb(colour)
    assert all(0 <= part <= 65535 for part in stored)
    assert rgb_from_cielab(stored) == colour
    assert stored == pytest.approx(colours.CIELabColor.from_rgb(*colour).value, abs=10)
    assert colours.CIELabColor.from_dicom_value(stored).to_rgb() == pytest.approx(colour, abs=1)
