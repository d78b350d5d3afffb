"""Energy and GPU readings against stand-ins: an NVML library in C, a RAPL folder, tegrastats of every generation."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.bench_runner import ThresholdRunner, engine_folder, opener
from support.clock import Clock
from support.jetson_boards import AGX_ORIN, OLD_ORIN_NANO, ORIN_NANO, THOR, XAVIER
from support.native_build import FLAGS, NATIVE, compiler, run, scratch

from gms_rt.bench import device_state, energy, nvml
from gms_rt.bench.energy import EnergyAccount
from gms_rt.bench.latency import TimingOptions, measure
from gms_rt.bench.meters import open_meter
from gms_rt.bench.nvml import open_nvml
from gms_rt.bench.nvml_energy import NvmlMeter, NvmlPowerMeter
from gms_rt.bench.rapl import RaplMeter
from gms_rt.bench.tegra import TegraMeter, module_rails, module_watts
from gms_rt.report.assemble import bench_report
from gms_rt.report.html import html_from_report
from gms_rt.report.markdown import markdown_from_report
from gms_rt.runtime.base import RunnerInfo
from gms_rt.runtime.device import Gpu, Machine, probe

NOT_SUPPORTED, LOST = 3, 15


@functools.cache
def library(*without: str) -> Path:
    """The stand-in, with some of its functions left out."""
    target = scratch() / f"libfake_nvml{'_'.join(('', *without))}.so"
    source = NATIVE / "tests" / "fake_nvml.c"
    defines = [f"-D{name}" for name in without]
    run([compiler(), *FLAGS, *defines, "-fPIC", "-shared", "-fvisibility=hidden", str(source), "-o", str(target),
         "-lpthread"])  # fmt: skip
    return target


class Fake:
    """Control of the stand-in."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.fake_nvml_call.restype = ctypes.c_char_p
        self.library.fake_nvml_mistake.restype = ctypes.c_char_p
        self.library.fake_nvml_pass.argtypes = [ctypes.c_double]

    @property
    def calls(self) -> list[str]:
        return [self.library.fake_nvml_call(i).decode() for i in range(self.library.fake_nvml_calls())]


def use_library(monkeypatch, path: Path | None) -> None:
    """Let `nvidia-ml-py` find this library, or none."""
    pynvml = pytest.importorskip("pynvml")

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    # It keeps the library and its functions for the life of the process.
    monkeypatch.setattr(pynvml, "CDLL", absent)
    monkeypatch.setattr(pynvml, "nvmlLib", None if path is None else ctypes.CDLL(str(path)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})


@pytest.fixture
def gpu(monkeypatch):
    """One GPU that NVML knows; afterwards nothing is left open and nothing was misused."""
    pytest.importorskip("pynvml")
    for without in ((), ("FAKE_NVML_OLD",), ("FAKE_NVML_BARE",)):
        library(*without)  # built before the compiler is hidden with everything else
    fake = Fake(library())
    fake.library.fake_nvml_reset()
    use_library(monkeypatch, library())
    monkeypatch.setattr(nvml, "probe", lambda: Machine(probe().cpu, (), None, "", {}))
    monkeypatch.setattr("gms_rt.bench.meters.shutil.which", lambda _: None)
    yield fake
    assert fake.library.fake_nvml_mistake() == b""
    assert fake.library.fake_nvml_live() == 0


@pytest.fixture
def clock(gpu, monkeypatch):
    """One clock for the GPU's counter and for who reads it."""
    clock = Clock(gpu.library.fake_nvml_pass)
    monkeypatch.setattr("gms_rt.bench.energy.time", clock)
    monkeypatch.setattr("gms_rt.bench.latency.time", clock)
    return clock


def test_a_gpu_is_read(gpu):
    found = device_state.snapshot(gpu=0)
    assert found.values["GPU SM clock"] == "1410 of 1410 MHz"
    assert found.values["GPU memory clock"] == "1215 of 1215 MHz"
    assert found.values["GPU temperature"] == "47 °C"
    assert found.values["GPU power"] == "65 W"
    assert found.values["GPU utilisation"] == "93 %"
    assert found.values["GPU throttle reasons"] == "power cap (0x4)"
    opened, _ = open_nvml()
    assert opened.read("memory") == 3 << 30
    opened.close()


def test_a_falling_gpu_clock_is_said(gpu):
    before = device_state.snapshot(gpu=0)
    gpu.library.fake_nvml_set_clock(990)
    after = device_state.snapshot(gpu=0)
    words = device_state.warnings(before, after, device_state.load_between(before, after))
    assert any("GPU SM clock fell from 1410 to 990 MHz" in w for w in words)


def test_the_counter_is_integrated_over_the_span(gpu, clock):
    source, why = open_meter(gpu=0)
    assert isinstance(source, NvmlMeter), why
    account, idle = EnergyAccount(source), EnergyAccount(source)
    gpu.library.fake_nvml_set_milliwatts(20_000)
    with idle.span():
        clock.sleep(0.1)
    gpu.library.fake_nvml_set_milliwatts(300_000)
    with account.span():
        clock.sleep(0.2)
    clock.sleep(5)  # between two spans nothing is counted
    with account.span():
        clock.sleep(0.1)
    source.close()
    found = account.energy(50, idle)
    assert account.seconds == pytest.approx(0.3)
    assert found.watts == pytest.approx(300)
    assert found.joules_per_image == pytest.approx(300 * 0.3 / 50)
    assert found.idle_watts == pytest.approx(20)
    assert found.why == ""


@pytest.mark.parametrize(("code", "words"), [(NOT_SUPPORTED, "Not Supported"), (LOST, "lost"), (4242, "code 4242")])
def test_every_call_that_fails_leaves_a_reason_and_nothing_open(gpu, code, words):
    device_state.snapshot(gpu=0)
    count = len(gpu.calls)
    assert count > 8
    for call in range(1, count + 1):
        gpu.library.fake_nvml_reset()
        gpu.library.fake_nvml_fail(call, code)
        found = device_state.snapshot(gpu=0)
        name = gpu.calls[call - 1]
        if name not in ("nvmlShutdown", "nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            assert any(words in why for key, why in found.absent.items() if "GPU" in key), name
        assert gpu.library.fake_nvml_live() == 0, name


def test_a_gpu_that_is_lost_during_a_run_gives_no_energy_but_a_reason(gpu):
    source, _ = open_meter(gpu=0)
    account = EnergyAccount(source)
    with account.span():
        gpu.library.fake_nvml_fail(1, LOST)
        gpu.library.fake_nvml_fail_later(LOST)
    found = account.energy(10)
    assert found.joules_per_image is None
    assert "GPU is lost" in found.why
    # The same before the span: a counter that began at nothing must not count weeks.
    gpu.library.fake_nvml_fail(1, NOT_SUPPORTED)
    account = EnergyAccount(source)
    with account.span():
        gpu.library.fake_nvml_pass(1.0)
    assert account.energy(10).joules_per_image is None
    source.close()


def test_without_a_counter_the_draw_is_sampled(gpu, monkeypatch):
    use_library(monkeypatch, library("FAKE_NVML_OLD"))
    old = Fake(library("FAKE_NVML_OLD"))
    old.library.fake_nvml_reset()
    source, why = open_meter(gpu=0)
    assert isinstance(source, NvmlPowerMeter), why
    account = EnergyAccount(source)
    old.library.fake_nvml_set_milliwatts(50_000)
    with account.span():
        time.sleep(0.3)
    source.close()
    found = account.energy(10)
    assert found.watts == pytest.approx(50, rel=0.1)
    assert "power samples" in found.source
    assert old.library.fake_nvml_live() == 0


def test_a_gpu_that_tells_nothing_says_so(gpu, monkeypatch):
    gpu.library.fake_nvml_fail(3, NOT_SUPPORTED)
    gpu.library.fake_nvml_fail_later(NOT_SUPPORTED)
    source, why = open_meter(gpu=0)
    assert source is None
    assert "energy counter: Not Supported; power: Not Supported" in why


def test_a_library_that_is_none_is_no_traceback(gpu, monkeypatch):
    use_library(monkeypatch, library("FAKE_NVML_BARE"))
    assert open_nvml()[0] is None
    assert "Function Not Found" in open_nvml()[1]
    assert "GPU" in " ".join(device_state.snapshot(gpu=0).absent)
    use_library(monkeypatch, None)
    assert "not found" in open_nvml()[1]


def test_without_the_driver_there_is_a_reason_and_not_a_word_of_output(monkeypatch, capfd):
    use_library(monkeypatch, None)
    why = "no NVML (libnvidia-ml.so.1 not found)"
    assert open_nvml() == (None, why)
    assert device_state.snapshot().absent["GPU clocks, temperature and power"] == why
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_nvml() == (None, "no NVML (nvidia-ml-py is not installed)")
    assert capfd.readouterr() == ("", "")


def test_a_device_that_is_not_there(gpu):
    assert open_nvml(3) == (None, "NVML has no device 3 (Not Found)")


def test_the_device_is_found_by_its_place_on_the_bus(gpu, monkeypatch):
    # CUDA's second device may be NVML's first: what counts is the place.
    def place(bus: str) -> None:
        gpus = tuple(Gpu(index, "A100", 80, 1, bus) for index in range(2))
        monkeypatch.setattr(nvml, "probe", lambda: Machine(probe().cpu, gpus, "13.0", "", {}))

    place("00000000:3B:00.0")
    opened, why = open_nvml(1)
    assert opened is not None, why
    opened.close()
    place("00000000:5E:00.0")
    assert open_nvml(0)[0] is None


def test_a_bench_states_energy_and_idle_draw_in_every_rendering(gpu, clock, tmp_path):
    runner = ThresholdRunner(delay=0.002, clock=clock)
    runner.info = RunnerInfo("tensorrt", 1, 32, 32, "a GPU", "f16")
    result = measure(
        [engine_folder(tmp_path / "e")], TimingOptions(seconds=0.2, rounds=2, cold=False), opener=opener(e=runner)
    )
    (m,) = result.measured
    assert m.energy.watts == pytest.approx(65)
    assert m.energy.joules_per_image == pytest.approx(65 * 0.002)
    assert m.energy.idle_watts == pytest.approx(65)
    report = bench_report(result)
    for text in (markdown_from_report(report), html_from_report(report)):
        assert "idle" in text
        assert "NVML energy counter" in text


LINES = {
    "AGX Orin, JetPack 6": (
        "11-20-2026 10:11:12 RAM 6712/62780MB (lfb 11x4MB) SWAP 0/31390MB (cached 0MB) CPU [12%@1113,3%@1113,off,off] "
        "EMC_FREQ 1%@2133 GR3D_FREQ 45%@[1109,1109] NVDLA0_FREQ @1600 APE 174 cpu@52.3C tboard@41.5C soc2@48.9C "
        "VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 14312mW/12415mW VIN_SYS_5V0 4968mW/5048mW VDDQ_VDD2_1V8AO 1091mW/1091mW",
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
        22.430,
    ),
    "Orin NX and Nano": (
        "RAM 2461/7620MB (lfb 4x2MB) SWAP 0/3810MB (cached 0MB) CPU [0%@729,1%@729,0%@729,0%@729,0%@729,0%@729] "
        "GR3D_FREQ 99%@[611] cpu@47.1C soc2@45.8C soc0@45.7C gpu@45.4C tj@47.1C soc1@47C VDD_IN 7420mW/7389mW "
        "VDD_CPU_GPU_CV 2361mW/2340mW VDD_SOC 1574mW/1574mW",
        ("VDD_IN",),
        7.420,
    ),
    "AGX Xavier, JetPack 4": (
        "RAM 3024/31920MB (lfb 6112x4MB) SWAP 0/15960MB (cached 0MB) CPU [2%@1190,0%@1190,0%@1190,0%@1190,off,off] "
        "EMC_FREQ 0%@2133 GR3D_FREQ 0%@318 APE 150 MTS fg 0% bg 1% AO@36C GPU@36.5C Tboard@36C Tdiode@38C AUX@35.5C "
        "CPU@37C thermal@36.3C PMIC@100C GPU 311/311 CPU 466/540 SOC 933/933 CV 0/0 VDDRQ 155/170 SYS5V 1418/1420",
        ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
        3.283,
    ),
    "Xavier NX": (
        "RAM 1733/7765MB (lfb 1215x4MB) SWAP 0/3882MB (cached 0MB) CPU [5%@1190,2%@1190,off,off,off,off] EMC_FREQ "
        "0%@1600 GR3D_FREQ 0%@114 VIC_FREQ 0%@115 APE 150 MTS fg 0% bg 3% AO@37C GPU@37.5C PMIC@50C AUX@37C CPU@38.5C "
        "thermal@37.75C VDD_IN 3295/3295 VDD_CPU_GPU_CV 451/451 VDD_SOC 1066/1066",
        ("VDD_IN",),
        3.295,
    ),
    "Nano": (
        "RAM 1903/3964MB (lfb 2x4MB) SWAP 12/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU "
        "[22%@1479,14%@1479,10%@1479,9%@1479] EMC_FREQ 9%@1600 GR3D_FREQ 61%@921 APE 25 PLL@36C CPU@38.5C PMIC@100C "
        "GPU@37C AO@44C thermal@37.75C POM_5V_IN 4821/3100 POM_5V_GPU 1430/420 POM_5V_CPU 1051/690",
        ("POM_5V_IN",),
        4.821,
    ),
    "TX2": (
        "RAM 3276/7859MB (lfb 5x4MB) CPU [44%@1421,49%@2031,67%@2034,17%@1420] EMC_FREQ 1%@1866 GR3D_FREQ 0%@114 APE "
        "150 PLL@42.5C MCPU@42.5C PMIC@50C Tboard@38C GPU@39.5C BCPU@42.5C thermal@41.3C VDD_SYS_GPU 182/182 "
        "VDD_SYS_SOC 730/730 VDD_4V0_WIFI 0/0 VDD_IN 5297/5297 VDD_SYS_CPU 1917/1917 VDD_SYS_DDR 1241/1241",
        ("VDD_IN",),
        5.297,
    ),
    "Thor": (
        "11-20-2026 10:11:12 RAM 9000/125772MB (lfb 1x4MB) CPU [1%@972,0%@972] EMC_FREQ 0%@4266 GR3D_FREQ @[0,0,0] "
        "cpu@53.7C gpu@50C VDD_GPU -392mW/0mW VDD_CPU_SOC_MSS 6510mW/6500mW VIN_SYS_5V0 6520mW/6500mW "
        "VIN 23100mW/23000mW",
        ("VIN",),
        23.1,
    ),
}


@pytest.mark.parametrize("board", LINES)
def test_the_module_of_every_generation_is_read(board):
    line, rails, watts = LINES[board]
    assert module_rails(line) == rails
    assert module_watts(line) == pytest.approx(watts)


@pytest.mark.parametrize(
    ("root", "rails", "watts"),
    [
        (AGX_ORIN, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), (13.718,)),
        (ORIN_NANO, ("VDD_IN",), (4.64,)),
        (OLD_ORIN_NANO, ("VDD_IN",), (4.362,)),
        (XAVIER, ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), (2.806,)),
        (THOR, ("VIN",), (19.78, 124.486)),  # JetPack 7.2 prints the peak as a third figure
    ],
)
def test_every_line_of_the_fixtures_is_read(root, rails, watts):
    lines = (root / "tegrastats.txt").read_text().splitlines()
    assert [module_rails(line) for line in lines] == [rails] * len(watts)
    assert [module_watts(line) for line in lines] == pytest.approx(list(watts))


def test_a_line_without_rails_tells_nothing():
    assert module_watts("RAM 6712/62780MB CPU [12%@1113] cpu@52.3C") is None
    assert module_watts("") is None


def _tool(folder: Path, body: str) -> TegraMeter:
    tool = folder / "tegrastats"
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(0o755)
    return TegraMeter(str(tool))


@pytest.mark.parametrize("board", ["AGX Orin, JetPack 6", "AGX Xavier, JetPack 4", "Nano"])
def test_tegrastats_is_integrated_over_the_span(tmp_path, board):
    line, rails, watts = LINES[board]
    source = _tool(
        tmp_path,
        f'echo "$@" > "{tmp_path}/asked"; echo $$ > "{tmp_path}/pid"; while true; do echo "{line}"; sleep 0.05; done',
    )
    account = EnergyAccount(source)
    for _ in range(2):
        with account.span():
            time.sleep(0.2)
    source.close()
    found = account.energy(20)
    assert found.watts == pytest.approx(watts, rel=0.02)
    assert found.joules_per_image == pytest.approx(watts * account.seconds / 20, rel=0.02)
    assert found.source == f"tegrastats ({' + '.join(rails)})"
    assert (tmp_path / "asked").read_text() == "--interval 100\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'Error: Run this script as a root user'; exit 1", "status 1 (Error: Run this script as a root user)"),
        ("echo 'VDD_IN 5000mW/5000mW'; exit 0", "ended with status 0"),
    ],
)
def test_tegrastats_that_ends_says_why(tmp_path, body, words):
    source = _tool(tmp_path, body)
    account = EnergyAccount(source)
    with account.span():
        end = time.monotonic() + 60
        while not source.trouble and time.monotonic() < end:
            time.sleep(0.01)
    source.close()
    found = account.energy(5)
    assert found.joules_per_image is None
    assert words in found.why


def test_tegrastats_that_names_no_rails_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "_FIRST_SECONDS", 0.1)  # it will never come, however long one waits
    source = _tool(tmp_path, "while true; do echo 'RAM 1/2MB CPU [1%@729]'; sleep 0.05; done")
    account = EnergyAccount(source)
    with account.span():
        pass
    source.close()
    found = account.energy(5)
    assert found.joules_per_image is None
    assert "no line names the module's rails" in found.why


def test_tegrastats_comes_before_everything_else(tmp_path, monkeypatch):
    _tool(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert isinstance(open_meter(gpu=0)[0], TegraMeter)


def _zone(root: Path, now: int, top: int = 1000) -> Path:
    zone = root / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "energy_uj").write_text(f"{now}\n")
    (zone / "max_energy_range_uj").write_text(f"{top}\n")
    return zone


def test_rapl_counts_and_wraps(tmp_path):
    zone = _zone(tmp_path, 100, 10_000_000)
    account = EnergyAccount(RaplMeter([zone]))
    with account.span():
        _zone(tmp_path, 2_000_100, 10_000_000)
    assert account.joules == pytest.approx(2.0)
    with account.span():
        _zone(tmp_path, 100, 10_000_000)
    assert account.joules == pytest.approx(10.0)
    assert account.energy(5).joules_per_image == pytest.approx(2.0)
    with account.span():
        (zone / "energy_uj").unlink()
    assert "cannot be read" in account.energy(5).why


def test_no_energy_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("gms_rt.bench.meters.shutil.which", lambda _: None)
    found, why = open_meter(gpu=None, root=tmp_path)
    assert found is None
    assert "RAPL" in why
    assert EnergyAccount(found, why).energy(3).why == why
    _zone(tmp_path, 1)
    found, why = open_meter(gpu=None, root=tmp_path)
    assert isinstance(found, RaplMeter)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    found, why = open_meter(gpu=None, root=tmp_path)
    assert found is None
    assert "root" in why


def test_the_integral_of_a_changing_draw():
    times = np.linspace(0, 4, 41)
    samples = [(float(t), float(10 + 5 * t)) for t in times]
    assert energy.integral(samples, 1.05, 3.33) == pytest.approx(10 * 2.28 + 2.5 * (3.33**2 - 1.05**2), rel=1e-6)
    assert energy.integral(samples, 8.0, 9.0) is None
    assert energy.integral([], 0.0, 1.0) is None
