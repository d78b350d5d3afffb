"""Evaluation of a data set: numbers against hand counts, empty masks, failed cases, files, both commands."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from support.phantom_folders import write_phantoms, write_picture

from gms_rt import metrics
from gms_rt.cli.eval import command
from gms_rt.data.layouts import recognise
from gms_rt.data.reading import read_case
from gms_rt.errors import CasesFailedError, UsageError
from gms_rt.evaluate.case_result import CaseResult, read_cases
from gms_rt.evaluate.choice import chosen_cases
from gms_rt.evaluate.comparison import compare_evaluations
from gms_rt.evaluate.dataset import AveragedModel, Judge, evaluate, evaluate_average
from gms_rt.evaluate.measure import Scale
from gms_rt.evaluate.published import CROSS, GMS, LOSS, TOKENIZER
from gms_rt.evaluate.summary import summarise
from gms_rt.model.student import Student, StudentShape
from gms_rt.model.student_run import save_student
from gms_rt.scan.segmenter import Segmenter

SIZE = (32, 32)


def bright(images: np.ndarray) -> np.ndarray:
    """A predictor that calls bright pixels foreground."""
    return np.where(images[..., 0] > 127, 255, 0).astype(np.uint8)


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """Pictures whose foreground is white: a hit, a miss, a false alarm, and nothing at all."""
    root = tmp_path / "squares"
    shown = {"hit": (8, 8), "miss": (0, 8), "alarm": (8, 0), "nothing": (0, 0)}
    for name, (seen, true) in shown.items():
        image, mask = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96), np.uint8)
        image[8 : 8 + 4 * seen, 9 : 9 + 6 * seen] = 255
        mask[8 : 8 + 4 * true, 9 : 9 + 6 * true] = 255
        write_picture(root / "images" / f"{name}.png", image)
        write_picture(root / "masks" / f"{name}.png", mask)
    return root


def test_outcomes_are_counted_and_misses_stay_in_the_mean(squares: Path, tmp_path: Path) -> None:
    cases = recognise(squares).cases
    result = evaluate(cases, Segmenter(bright, *SIZE), tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == result.summary
    assert summary["cases"] == {"all": 4, "hit": 1, "miss": 1, "false_alarm": 1, "both_empty": 1, "failed": 0}
    by_name = {case.name: case for case in result.cases}
    assert (by_name["miss"].dice, by_name["alarm"].dice, by_name["nothing"].dice) == (0, 0, 1)
    assert by_name["hit"].dice > 0.9
    assert summary["source_size"]["dice"]["mean"] == pytest.approx((by_name["hit"].dice + 1) / 4, abs=1e-6)
    assert "one empty 0" in summary["empty_mask_policy"]
    assert math.isinf(by_name["miss"].hd95)
    at = summary["source_size"]
    assert at["hd95"]["mean"] == pytest.approx(by_name["hit"].hd95)
    assert at["hd95_penalised"]["mean"] == pytest.approx((by_name["hit"].hd95 + 2 * math.hypot(64, 96)) / 4, abs=1e-5)


def test_lesions_and_surfaces_are_counted_with_intervals(squares: Path, tmp_path: Path) -> None:
    cases = recognise(squares).cases
    result = evaluate(cases, Segmenter(bright, *SIZE), tmp_path / "out", Judge(Scale(tolerance=4.0)))
    by_name = {case.name: (case.lesions, case.lesions_found, case.false_regions) for case in result.cases}
    assert by_name == {"hit": (1, 1, 0), "miss": (1, 0, 0), "alarm": (0, 0, 1), "nothing": (0, 0, 0)}
    lesions = result.summary["lesions"]
    assert (lesions["all"], lesions["found"], lesions["sensitivity"]["mean"]) == (2, 1, 0.5)
    assert lesions["sensitivity"]["interval95"] == [0.0, 1.0]
    assert lesions["false_alarms_per_image"]["mean"] == 0.25
    assert result.summary["nsd_tolerance"] == 4.0
    assert {"hd95", "nsd", "lesions"} <= result.summary["definitions"].keys()
    assert [round(case.nsd) for case in result.cases] == [0, 1, 0, 1]  # alarm, hit, miss, nothing
    assert result.summary["at_224"]["nsd"]["mean"] == pytest.approx(0.5, abs=0.01)
    exact = evaluate(cases, Segmenter(bright, *SIZE), tmp_path / "exact", Judge(Scale(tolerance=0.0))).cases[1]
    assert exact.nsd < result.cases[1].nsd


def test_tables_of_earlier_versions_read_and_compare(squares: Path, tmp_path: Path) -> None:
    result = evaluate(recognise(squares).cases, Segmenter(bright, *SIZE), tmp_path / "out")
    newer = ("nsd", "nsd_224", "lesions", "lesions_found", "false_regions")
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()))
    kept = [name for name in rows[0] if name not in newer]
    assert kept[-1] == "error", "the newer columns are the last"
    with (tmp_path / "older.csv").open("w") as file:
        table = csv.DictWriter(file, kept, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    older = read_cases(tmp_path / "older.csv")
    assert [case.dice for case in older] == [case.dice for case in result.cases]
    found = compare_evaluations(older, result.cases)
    assert found["dice"]["difference"] == 0
    assert found["nsd"] is None


def test_the_table_holds_each_case_and_reads_back(squares: Path, tmp_path: Path) -> None:
    cases = recognise(squares).cases
    result = evaluate(cases, Segmenter(bright, *SIZE), tmp_path / "out")
    assert read_cases(tmp_path / "out") == list(result.cases)
    row = next(
        r for r in csv.DictReader((tmp_path / "out" / "cases.csv").read_text().splitlines()) if r["name"] == "hit"
    )
    _, truth = read_case(next(case for case in cases if case.name == "hit"))
    assert int(row["truth_pixels"]) == np.count_nonzero(truth)
    assert float(row["iou"]) == pytest.approx(float(row["dice"]) / (2 - float(row["dice"])))


def test_names_that_a_spreadsheet_would_compute_read_back(squares: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (squares / kind / "hit.png").rename(squares / kind / "=1+2.png")
    result = evaluate(recognise(squares).cases, Segmenter(bright, *SIZE), tmp_path / "out")
    assert "\n'=1+2," in (tmp_path / "out" / "cases.csv").read_text()
    assert [case.name for case in read_cases(tmp_path / "out")] == [case.name for case in result.cases]
    assert "=1+2" in [case.name for case in result.cases]


def test_source_size_uses_the_resized_probability(squares: Path, tmp_path: Path) -> None:
    case = next(case for case in recognise(squares).cases if case.name == "hit")

    def ramp(images: np.ndarray) -> np.ndarray:
        return np.tile(np.linspace(0, 255, 32).astype(np.uint8), (len(images), 32, 1))

    found = evaluate([case], Segmenter(ramp, *SIZE), tmp_path / "out").cases[0]
    _, truth = read_case(case)
    half = np.zeros_like(truth)
    half[:, 48:] = 255
    assert found.dice == pytest.approx(metrics.dice(half, truth), abs=0.02)
    assert found.predicted_pixels == pytest.approx(64 * 48, abs=64)


def test_spacing_scales_the_distance_at_source_size_only(squares: Path, tmp_path: Path) -> None:
    case = next(case for case in recognise(squares).cases if case.name == "hit")

    def shifted(images: np.ndarray) -> np.ndarray:
        return np.roll(bright(images), 3, axis=2)

    plain = evaluate([case], Segmenter(shifted, *SIZE), tmp_path / "a").cases[0]
    scaled = evaluate([case], Segmenter(shifted, *SIZE), tmp_path / "b", Judge(Scale(spacing=(0.5, 0.5)))).cases[0]
    assert plain.hd95 > 0
    assert scaled.hd95 == pytest.approx(plain.hd95 / 2)
    assert scaled.hd95_224 == plain.hd95_224


def test_failed_cases_are_listed_not_dropped(squares: Path, tmp_path: Path) -> None:
    (squares / "images" / "miss.png").write_bytes(b"broken")
    result = evaluate(recognise(squares).cases, Segmenter(bright, *SIZE), tmp_path / "out")
    assert result.summary["cases"]["failed"] == 1
    assert "is not a PNG" in next(case for case in result.cases if case.name == "miss").error
    assert read_cases(tmp_path / "out")[2].error


def test_the_gallery_shows_the_worst_first(squares: Path, tmp_path: Path) -> None:
    evaluate(recognise(squares).cases, Segmenter(bright, *SIZE), tmp_path / "out", Judge(gallery=2))
    names = sorted(path.name for path in (tmp_path / "out" / "failures").iterdir())
    assert [name[:13] for name in names] == ["01-dice0.000-", "02-dice0.000-"]
    evaluate(recognise(squares).cases, Segmenter(bright, *SIZE), tmp_path / "out", Judge(gallery=1))
    assert len(list((tmp_path / "out" / "failures").iterdir())) == 1


def test_the_same_cases_give_the_same_interval() -> None:
    results = [CaseResult(str(n), 10, 10, n / 10, n / 10, 1.0, n / 10, n / 10, 1.0, 5, 5) for n in range(10)]
    assert summarise(results) == summarise(results)
    low, high = summarise(results)["source_size"]["dice"]["interval95"]
    assert low < 0.45 < high


def constant(value: int) -> Segmenter:
    """A model that says the same everywhere, on pictures of its own size."""
    return Segmenter(lambda images: np.full(images.shape[:3], value, np.uint8), *SIZE)


def test_the_average_is_of_probabilities_and_each_model_runs_once(squares: Path, tmp_path: Path) -> None:
    cases = recognise(squares).cases
    calls: list[int] = []

    def counted(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        return bright(images)

    # 255 where bright and 60 everywhere: their mean is foreground only where bright.
    sharp = AveragedModel("sharp", Segmenter(counted, 40, 48), {"run": "sharp"})
    models = [sharp, AveragedModel("faint", constant(60), {"run": "faint"})]
    result = evaluate_average(cases, models, tmp_path / "out", Judge(facts={"data": "squares"}, gallery=0))
    assert calls == [1] * len(cases)
    alone = evaluate(cases, sharp.segmenter, tmp_path / "alone", Judge(gallery=0))
    assert {c.predicted_pixels for c in result.each["faint"].cases} == {0}
    for both, one in zip(result.average.cases, alone.cases, strict=True):
        assert both.outcome == one.outcome
        assert both.dice == pytest.approx(one.dice, abs=0.03)
    loud = [sharp, *(AveragedModel(label, constant(200), {}) for label in ("loud", "louder"))]
    everywhere = evaluate_average(cases, loud, tmp_path / "loud", Judge(gallery=0))
    assert {case.predicted_pixels for case in everywhere.average.cases} == {64 * 96}

    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [model["run"] for model in written["average_of"]] == ["sharp", "faint"]
    assert read_cases(tmp_path / "out") == list(result.average.cases)
    assert read_cases(tmp_path / "out" / "each" / "sharp") == list(result.each["sharp"].cases)
    assert [c.dice for c in result.each["sharp"].cases] == [c.dice for c in alone.cases]
    found = json.loads((tmp_path / "out" / "average.json").read_text())["average_minus_each"]
    gains = [a.dice - b.dice for a, b in zip(result.average.cases, result.each["faint"].cases, strict=True)]
    assert sorted(np.round(gains)) == [-1, 0, 0, 1], "the hit gained, the false alarm lost"
    assert found["faint"]["dice"]["difference"] == pytest.approx(np.mean(gains), abs=1e-6)


def test_a_case_that_one_of_the_averaged_models_cannot_segment_failed(squares: Path, tmp_path: Path) -> None:
    def broken(images: np.ndarray) -> np.ndarray:
        raise UsageError("does not run")

    models = [
        AveragedModel("good", Segmenter(bright, *SIZE), {}),
        AveragedModel("bad", Segmenter(broken, *SIZE), {}),
    ]
    result = evaluate_average(recognise(squares).cases, models, tmp_path / "out")
    assert {case.outcome for case in result.average.cases} == {"failed"}
    assert result.each["good"].summary["cases"]["failed"] == 0
    assert result.differences == {}


def test_which_cases(tmp_path: Path) -> None:
    data = recognise(write_phantoms(tmp_path / "data", 10))
    lists = tmp_path / "lists.json"
    lists.write_text(
        json.dumps({"train": [f"case_{n:02d}" for n in range(4)], "test": ["case_09", "case_05", "case_07"]})
    )
    assert [c.name for c in chosen_cases(data, "test", file=lists)[0]] == ["case_05", "case_07", "case_09"]
    assert [c.name for c in chosen_cases(data, "test", file=lists, every=2)[0]] == ["case_05", "case_09"]
    assert len(chosen_cases(data, "all")[0]) == 10
    run = tmp_path / "run"
    run.mkdir()
    (run / "split.json").write_text(json.dumps({"train": ["case_00"], "test": ["case_01"]}))
    assert [c.name for c in chosen_cases(data, "test", run=run)[0]] == ["case_01"], "what the run did not train on"
    with pytest.raises(UsageError, match="unknown part"):
        chosen_cases(data, "tset")


@pytest.mark.parametrize("lists", [{"test": ["case_05", "case_07"]}, {"train": [], "test": ["case_05", "case_07"]}])
def test_a_list_that_has_only_a_test_part_is_enough_to_test(tmp_path: Path, lists: dict[str, list[str]]) -> None:
    data = recognise(write_phantoms(tmp_path / "data", 10))
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    found, source = chosen_cases(data, "test", file=tmp_path / "lists.json")
    assert ([case.name for case in found], source) == (["case_05", "case_07"], "lists.json")
    with pytest.raises(UsageError, match="the part 'train' has no case"):
        chosen_cases(data, "train", file=tmp_path / "lists.json")


def test_published_numbers_agree_between_tables() -> None:
    assert LOSS["both"]["busi"] == TOKENIZER["sd-vae"]["busi"] == GMS["busi"] == (81.43, 72.58, 19.50)
    assert CROSS["busi", "bus"].dsc == 80.31
    for numbers in GMS.values():
        assert numbers.iou is not None
        assert numbers.iou < numbers.dsc


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two data sets and a run trained on the first."""
    from support.phantom_folders import write_tokenizer

    from gms_rt.data.splits import split_dataset
    from gms_rt.model.loading import load_tokenizer
    from gms_rt.train.loop import train
    from gms_rt.train.recipe import load_recipe
    from gms_rt.train.request import TrainingRequest

    root = tmp_path_factory.mktemp("eval")
    first, second = write_phantoms(root / "busi", 12), write_phantoms(root / "bus", 10, first=50)
    how = load_recipe("fast", ["size=32", "width=8", "groups=4", "multipliers=[1,2]", "batch=4", "latent_epochs=2",
                               "epochs=1", "views=2", "threads=1"])  # fmt: skip
    data = recognise(first)
    tokenizer = load_tokenizer(write_tokenizer(root / "tokenizer"))
    train(TrainingRequest(data, split_dataset(data), tokenizer, how, root / "run"))
    return first, second, root / "run"


def test_a_run_as_a_command(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, _, run = trained
    done = invoke(first, "--run", run, "--out", tmp_path / "a", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["cases"]["all"] == 2
    assert "as trained" in summary["split_source"]
    text = invoke(first, "--run", run, "--compare", tmp_path / "a", "--out", tmp_path / "b")
    published = ["published", "(paper,", "SD-VAE,", "224x224)", "81.43", "-", "72.58", "-", "19.50", "-"]
    assert published in [line.split() for line in text.output.splitlines()]
    head = next(line for line in text.output.splitlines() if "DSC" in line)
    assert head.split() == ["DSC", "95", "%", "interval", "IoU", "HD95", "hits", "HD95", "all", "NSD"]
    assert "MONAI's definition" in text.output
    assert "The paper does not say how its HD95 counts a miss." in text.output
    assert re.search(r"\d+ of \d+ lesions found \(sensitivity .*\), .* false alarms per image", text.output)
    assert "Dice +0.0000" in text.output
    assert json.loads((tmp_path / "b" / "comparison.json").read_text())["dice"]["wilcoxon_p"] == 1.0


def test_the_average_of_runs_as_a_command(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, second, run = trained
    twins = ["--average", "--run", run, "--run", run]
    done = invoke(first, *twins, "--out", tmp_path / "average", "--json")
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert set(values["each"]) == {"run-1", "run-2"}
    for label, one in values["each"].items():
        assert one["at_224"] == values["at_224"], "the mean of two equal models is that model"
        assert values["average_minus_each"][label]["dice"]["difference"] == 0
        assert "as trained" in one["split_source"]
    text = invoke(first, *twins, "--tta", "--flips", "quarter-turns", "--out", tmp_path / "turned").output
    rows = [line.partition(", at 224x224 ")[0] for line in text.splitlines() if ", at 224x224 " in line]
    assert rows == ["run-1", "run-2", "average"]
    assert "average against run-1: Dice +0.0000" in text
    assert json.loads((tmp_path / "turned" / "summary.json").read_text())["flips"] == "quarter-turns"

    for wrong in ([first, "--average", "--run", run], [first, "--run", run, "--run", run],
                  ["--matrix", "--average", first, second, "--run", run, "--run", run]):  # fmt: skip
        assert isinstance(invoke(*wrong, "--out", tmp_path / "wrong").exception, UsageError), wrong


def test_runs_that_keep_different_cases_are_not_averaged(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, _, run = trained
    other = tmp_path / "other"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("latents"))
    lists = json.loads((run / "split.json").read_text())
    lists["train"], lists["test"] = [*lists["test"], *lists["train"][2:]], lists["train"][:2]
    (other / "split.json").write_text(json.dumps(lists))
    both = [first, "--average", "--run", run, "--run", other]
    refused = invoke(*both, "--out", tmp_path / "out").exception
    assert isinstance(refused, UsageError)
    assert "different cases" in str(refused)
    assert invoke(*both, "--splits", run / "split.json", "--out", tmp_path / "named").exit_code == 0


def test_the_matrix_sets_the_papers_numbers_beside(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, second, run = trained
    done = invoke("--matrix", first, second, "--run", run, "--run", run, "--out", tmp_path / "m")
    assert done.exit_code == 0, done.output
    assert "busi to bus" in done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["published", "(paper,", "table", "3)", "80.31", "-", "-", "-", "18.55", "-"] in lines
    interval = next(line for line in lines if line[:3] == ["busi", "to", "bus"])[4]
    low, high = json.loads((tmp_path / "m" / "matrix.json").read_text())["busi to bus"]["at_224"]["dice"]["interval95"]
    assert interval == f"{100 * low:.2f}-{100 * high:.2f}"
    assert set(json.loads((tmp_path / "m" / "matrix.json").read_text())) == {"busi to bus", "bus to busi"}
    assert isinstance(invoke("--matrix", first, "--run", run, "--out", tmp_path).exception, UsageError)


def test_a_folder_without_a_run_is_foreign_and_taken_whole(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, second, run = trained
    elsewhere = write_phantoms(tmp_path / "clinic" / "busi", 5, first=80)
    done = invoke("--matrix", first, second, elsewhere, "--run", run, "--out", tmp_path / "m", "--json")
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    # Two folders of one name are told apart; nothing of a foreign folder was trained on, so no case is left out.
    assert {name: value["cases"]["all"] for name, value in values.items()} == {
        "busi-1 to bus": 10,
        "busi-1 to busi-2": 5,
    }
    assert {value["split"] for value in values.values()} == {"all"}
    part = ["--split", "test", "--out", tmp_path / "part", "--json"]
    chosen = json.loads(invoke("--matrix", first, second, "--run", run, *part).stdout)
    assert chosen["busi to bus"]["split"] == "test"
    assert chosen["busi to bus"]["cases"]["all"] < 10
    for wrong in ([first, second], [first, second, "--run", run, "--run", run, "--run", run],
                  [first, second, "--run", run, "--engine", run]):  # fmt: skip
        assert isinstance(invoke("--matrix", *wrong, "--out", tmp_path / "wrong").exception, UsageError)


def test_a_student_stands_below_its_run(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, _, run = trained
    torch.manual_seed(3)
    save_student(tmp_path / "student", Student(StudentShape(size=32, width=16, blocks=(1, 0, 0), merge_blocks=0)), {})
    elsewhere, broken = (
        write_phantoms(tmp_path / "clinic", 6, first=80),
        write_phantoms(tmp_path / "broken", 2, first=90),
    )
    for image in (broken / "images").iterdir():
        image.write_bytes(b"broken")
    given = ["--matrix", first, elsewhere, "--run", run, "--student", tmp_path / "student"]
    done = invoke(*given, "--out", tmp_path / "m")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    here = next(number for number, line in enumerate(lines) if line.startswith("busi to clinic "))
    assert lines[here + 1].startswith("  its student ")
    values = json.loads((tmp_path / "m" / "matrix.json").read_text())
    teacher, student = values["busi to clinic"], values["busi to clinic, student"]
    apart = student["student_minus_run"]
    assert (apart["pairs"], student["cases"]["all"], student["split"]) == (6, 6, "all")
    change = student["source_size"]["dice"]["mean"] - teacher["source_size"]["dice"]["mean"]
    assert apart["dice"]["difference"] == pytest.approx(change, abs=2e-4) != 0
    assert f"  student less run: Dice {apart['dice']['difference']:+.4f} (" in done.output
    assert len(read_cases(tmp_path / "m" / "busi-to-clinic-student")) == 6

    failed = invoke("--matrix", first, broken, "--run", run, "--student", tmp_path / "student", "--out", tmp_path / "b")
    assert isinstance(failed.exception, CasesFailedError)
    assert "student less run" not in failed.output
    for wrong in ([first, "--run", run, "--student", run], [*given, "--student", run]):
        refused = invoke(*wrong, "--out", tmp_path / "wrong").exception
        assert isinstance(refused, UsageError) and "--student" in str(refused)
    nothing = [first, "--reconstruct", "--tokenizer", "sd-vae", "--student", run]
    assert "takes no model" in str(invoke(*nothing, "--out", tmp_path / "wrong").exception)


def test_what_a_run_and_its_student_lose_away_from_home(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, _, run = trained
    torch.manual_seed(3)
    save_student(tmp_path / "student", Student(StudentShape(size=32, width=16, blocks=(1, 0, 0), merge_blocks=0)), {})
    clinic = write_phantoms(tmp_path / "clinic", 6, first=80)
    given = ["--matrix", first, clinic, "--run", run, "--student", tmp_path / "student", "--home"]
    done = invoke(*given, "--out", tmp_path / "m")
    assert done.exit_code == 0, done.output
    values = json.loads((tmp_path / "m" / "matrix.json").read_text())
    assert list(values) == ["busi at home", "busi at home, student", "busi to clinic", "busi to clinic, student"]
    kept = json.loads((run / "split.json").read_text())["test"]
    for who, name in (("run", ""), ("student", ", student")):
        home, away = values[f"busi at home{name}"], values[f"busi to clinic{name}"]
        assert (home["split"], home["cases"]["all"], away["cases"]["all"]) == ("test", len(kept), 6)
        lost = away["away_minus_home"]
        assert lost["dice_224"] == pytest.approx(
            away["at_224"]["dice"]["mean"] - home["at_224"]["dice"]["mean"], abs=2e-6
        )
        low, high = lost["interval95"]
        assert low <= lost["dice_224"] <= high
        assert f"busi to clinic, {who} away less home: Dice at 224x224 {lost['dice_224']:+.4f} (" in done.output
    assert "student_minus_run" in values["busi at home, student"]
    refused = invoke(first, "--run", run, "--home", "--out", tmp_path / "wrong").exception
    assert isinstance(refused, UsageError) and "--matrix" in str(refused)


def test_failed_cases_make_exit_code_five(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, second, run = trained
    (second / "images" / "case_55.png").write_bytes(b"broken")
    done = invoke(second, "--run", run, "--split", "all", "--out", tmp_path / "out")
    assert isinstance(done.exception, CasesFailedError)
    assert len(read_cases(tmp_path / "out")) == 10


def test_failed_cases_of_a_matrix_make_exit_code_five_after_the_whole_table(
    trained: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    first, _, run = trained
    broken = write_phantoms(tmp_path / "broken", 3, first=70)
    whole = write_phantoms(tmp_path / "whole", 3, first=60)
    for image in (broken / "images").iterdir():
        image.write_bytes(b"broken")
    done = invoke("--matrix", first, broken, whole, "--run", run, "--out", tmp_path / "m")
    assert isinstance(done.exception, CasesFailedError)
    assert "3 cases failed" in str(done.exception)
    assert "busi to broken: 3 cases, 3 of them failed" in done.output
    assert set(json.loads((tmp_path / "m" / "matrix.json").read_text())) == {"busi to broken", "busi to whole"}


def test_wrong_use_is_one_line(tmp_path: Path) -> None:
    for arguments in (
        [tmp_path, "--out", tmp_path],
        [tmp_path, "--run", tmp_path, "--engine", tmp_path, "--out", tmp_path],
    ):
        assert isinstance(invoke(*arguments).exception, UsageError)


def test_an_engine_of_the_run_gives_the_runs_numbers(
    trained: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gms_rt.cli import main

    first, _, run = trained
    engine = tmp_path / "engine"
    # So little trained, the model finds nothing on its validation image: the engine is there, and nothing is proven.
    assert main.run(["build", str(run), "--precision", "fp32", "--target", "cpu", "--out", str(engine)]) == 3
    error = capsys.readouterr().err
    assert "nothing was proven; export with --reference" in error
    assert (run / "fused-32x32.onnx").is_file(), "a run is exported at the size it was trained at"
    assert invoke(first, "--run", run, "--split", "all", "--out", tmp_path / "run").exit_code == 0
    done = invoke(
        first, "--engine", engine, "--split", "all", "--compare", tmp_path / "run", "--out", tmp_path / "e", "--json"
    )
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["precision"] == "fp32"
    assert summary["comparison"]["pairs"] == 12
    for by_run, by_engine in zip(read_cases(tmp_path / "run"), read_cases(tmp_path / "e"), strict=True):
        assert by_engine.dice == pytest.approx(by_run.dice, abs=0.01), by_run.name
    for kind, folder in (("--run", run), ("--engine", engine)):
        done = invoke(first, kind, folder, "--split", "all", "--tta", "--out", tmp_path / f"flips{kind}", "--json")
        assert json.loads(done.stdout)["tta"] is True
    flipped = [read_cases(tmp_path / f"flips{kind}") for kind in ("--run", "--engine")]
    for by_run, by_engine in zip(*flipped, strict=True):
        assert by_engine.dice == pytest.approx(by_run.dice, abs=0.01), by_run.name
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["tta"] is False
    mirrored = ["--tta", "--flips", "horizontal", "--out", tmp_path / "mirrored", "--json"]
    done = invoke(first, "--run", run, "--split", "all", *mirrored)
    assert json.loads(done.stdout)["flips"] == "horizontal"
    alone = invoke(first, "--run", run, "--split", "all", "--flips", "horizontal", "--out", tmp_path / "alone")
    assert isinstance(alone.exception, UsageError)
    assert "add --tta" in str(alone.exception)
