"""What a device is doing is read where it can be, and its absence explained where not."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.jetson_boards import AGX_ORIN, OLD_ORIN_NANO, ORIN_NANO, THOR, XAVIER

from gms_rt.bench import device_state
from gms_rt.bench.device_state import Snapshot, Ticks


def _board(root: Path, *, governor: str = "powersave", stat: str = "cpu 100 0 100 800 0 0 0 0 0 0") -> Path:
    for cpu in ("cpu0", "cpu1"):
        folder = root / f"sys/devices/system/cpu/{cpu}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(f"{governor}\n")
        (folder / "scaling_cur_freq").write_text("1500000\n")
        (folder / "cpuinfo_max_freq").write_text("3000000\n")
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("51500\n")
    (root / "proc").mkdir()
    (root / "proc/stat").write_text(f"{stat}\ncpu0 1 2 3\n")
    (root / "proc/loadavg").write_text("0.50 0.40 0.30 1/2 3\n")
    (root / "proc/meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 4194304 kB\n")
    return root


def test_a_board_is_read(tmp_path):
    found = device_state.snapshot(root=_board(tmp_path))
    assert found.values["CPU governor"] == "powersave"
    assert found.values["CPU frequency"] == "1500 of 3000 MHz"
    assert found.values["CPU temperature"] in ("51 °C", "52 °C")
    assert found.values["load average"] == "0.50 0.40 0.30"
    assert found.values["free memory"] == "4.0 GiB"
    assert found.ticks is not None


def test_files_that_say_something_else_are_absent_things(tmp_path):
    root = _board(tmp_path, stat="cpu many")
    (root / "proc/meminfo").write_text("MemAvailable:\n")
    for file in (root / "sys").glob("**/*_freq"):
        file.write_text("\u00b2\n")  # a digit, and no number
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("--5\n")
    found = device_state.snapshot(root=root)
    assert not {"free memory", "CPU frequency", "CPU temperature"} & found.values.keys()
    assert found.ticks is None


def test_absent_things_say_why(tmp_path):
    found = device_state.snapshot(root=tmp_path)
    for name in ("CPU governor", "CPU frequency", "CPU temperature", "load average", "free memory"):
        assert name not in found.values
        assert found.absent[name]
    lines = device_state.readings(found, found)
    assert all(line.why for line in lines if line.before is None and line.after is None)
    assert device_state.load_between(found, found).why


def _at(busy: int, own: float, stolen: int, total: int, **values: str) -> Snapshot:
    return Snapshot(values, {}, Ticks(0.0, busy, own, stolen, total))


def test_other_load_is_what_is_busy_beside_this_process():
    load = device_state.load_between(_at(100, 10, 0, 1000), _at(600, 110, 50, 2000))
    # 500 busy ticks, 100 of them our own, of 1000.
    assert (load.others, load.stolen) == (40.0, 5.0)


BUSY = "while True: sum(range(1000))"
# A child that works for a while, with a child of its own that goes on for ever.
NESTED = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"
SHORT = "import time\nwhile time.process_time() < 0.2: sum(range(1000))"
linux = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="no Linux process files")


def _spent(process: int) -> int:
    return sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))


def _until_spent(process: int, ticks: int) -> int:
    """Wait until a process has used so much more processor time; other programs may take most of it."""
    goal, end = _spent(process) + ticks, time.monotonic() + 60
    while _spent(process) < goal:
        assert time.monotonic() < end, "the busy process gets no processor"
        time.sleep(0.05)
    return ticks


def _child_of(process: int) -> int:
    file, end = Path(f"/proc/{process}/task/{process}/children"), time.monotonic() + 60
    while not (found := file.read_text().split()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return int(found[0])


@linux
def test_what_the_bench_itself_started_is_no_other_program():
    with contextlib.ExitStack() as stack:

        def started(code: str) -> int:
            process = subprocess.Popen([sys.executable, "-c", code])
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process.pid

        peer = started(BUSY)
        first = device_state.ticks()
        sure = _until_spent(peer, 8)
        # One that begins and ends in between, and one that begins, has a child, and is there at the end.
        subprocess.run([sys.executable, "-c", SHORT], check=True)
        worker = _child_of(started(NESTED))
        stack.callback(os.kill, worker, signal.SIGKILL)
        sure += 20 + _until_spent(worker, 8)
        last = device_state.ticks()
        assert first is not None
        assert last is not None
        assert last.own - first.own >= sure - 2
    # Ending and being waited for moves the time, it does not lose it.
    after = device_state.ticks()
    assert after is not None
    assert after.own - first.own >= sure - 2


@linux
def test_a_busy_program_of_somebody_else_is_one():
    # Started by a shell that ends at once, so it is nobody's child here.
    script = f"'{sys.executable}' -c '{BUSY}' >/dev/null 2>&1 & echo $!"
    process = int(subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout)
    try:
        first = device_state.ticks()
        sure = _until_spent(process, 40)
        last = device_state.ticks()
        assert first is not None
        assert last is not None
        # The kernel counts the whole machine by sampling, so a few ticks may differ.
        assert (last.busy - first.busy) - (last.own - first.own) > sure * 0.7 - 5
        load = device_state.load_between(Snapshot({}, {}, first), Snapshot({}, {}, last))
        assert load.others is not None
        assert load.others > 0
    finally:
        os.kill(process, signal.SIGKILL)


def test_the_processes_below_this_one_are_added_up(tmp_path):
    def process(number: int, parent: int, name: str, *times: int) -> None:
        folder = tmp_path / "proc" / str(number)
        folder.mkdir(parents=True)
        words = [str(number), f"({name})", "S", str(parent), *["0"] * 9, *map(str, times), *["0"] * 20]
        (folder / "stat").write_text(" ".join(words))

    me = os.getpid()
    process(me, 1, "bench", 10, 2, 5, 1)
    process(me + 1, me, "a (peer) with ) 3 4 in its name", 100, 20, 0, 0)
    process(me + 2, me + 1, "its worker", 7, 0, 0, 0)
    process(me + 3, 1, "somebody else", 9999, 0, 0, 0)
    (tmp_path / "proc/stat").write_text("cpu 100 0 100 800 0 0 0 0 0 0\n")
    found = device_state.ticks(tmp_path)
    assert found is not None
    assert found.own == 18 + 120 + 7


def test_a_noisy_machine_is_called_so():
    before, after = _at(0, 0, 0, 0), _at(500, 0, 50, 1000)
    words = device_state.warnings(before, after, device_state.load_between(before, after))
    assert any("noisy machine" in w and "50 %" in w for w in words)
    assert any("virtual machines" in w for w in words)
    quiet = _at(500, 490, 1, 1000)
    assert device_state.warnings(before, quiet, device_state.load_between(before, quiet)) == []


def test_a_saving_governor_and_falling_clocks_are_said():
    names = {"CPU governor": "powersave", "CPU frequency": "3000 of 3000 MHz"}
    before = Snapshot(names, {}, None)
    after = Snapshot(names | {"CPU frequency": "2000 of 3000 MHz"}, {}, None)
    words = device_state.warnings(before, after, device_state.load_between(before, after))
    assert any("powersave" in w for w in words)
    assert any("fell from 3000 to 2000 MHz" in w for w in words)


@pytest.mark.parametrize(("bits", "told"), [(0x0, ""), (0x1, ""), (0x4, "power cap"), (0x61, "too warm, too hot")])
def test_a_gpu_that_is_held_down_is_said(bits, told):
    text = device_state.throttle_text(bits)
    after = Snapshot({"GPU throttle reasons": text}, {}, None)
    words = device_state.warnings(Snapshot({}, {}, None), after, device_state.load_between(after, after))
    assert words == ([f"the GPU's clock was held down at the end of the run: {told}"] if told else [])
    assert (text == "none") == (bits == 0)


def test_power_mode_comes_from_nvpmodel(tmp_path, monkeypatch):
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: MAXN'\necho 0\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert device_state.snapshot(root=tmp_path).values["power mode"] == "MAXN"


@pytest.fixture
def no_nvml(monkeypatch):
    monkeypatch.setattr(device_state, "open_nvml", lambda index: (None, "no NVML (libnvidia-ml.so.1 not found)"))


@pytest.mark.parametrize(
    ("root", "clock", "load", "gpu", "cpu", "junction", "mode"),
    [
        (AGX_ORIN, "306 of 1300 MHz, not locked", "84 %", "43 °C", "48 °C", "48 °C", "MAXN"),
        (ORIN_NANO, "1020 of 1020 MHz, locked", "0 %", "51 °C", "50 °C", "51 °C", "25W"),
        (OLD_ORIN_NANO, "306 of 625 MHz, not locked", "0 %", None, "45 °C", "45 °C", "15W"),
        (XAVIER, "115 of 676 MHz, not locked", "0 %", "35 °C", "36 °C", None, "MODE_15W"),
        (THOR, "1575 of 1575 MHz, not locked", None, None, "37 °C", "39 °C", "120W"),
    ],
)
def test_a_jetson_gpu_is_read_from_the_kernel(root, clock, load, gpu, cpu, junction, mode, no_nvml):
    found = device_state.snapshot(gpu=0, root=root).values
    assert found["GPU SM clock"] == clock
    assert found["GPU governor"] == "nvhost_podgov"
    assert found.get("GPU utilisation") == load
    assert found.get("GPU temperature") == gpu
    assert found["CPU temperature"] == cpu
    assert found.get("junction temperature") == junction
    assert found["power mode"] == mode


def test_another_makers_gpu_is_not_taken_for_ours(no_nvml, tmp_path):
    root = shutil.copytree(ORIN_NANO, tmp_path / "board")
    (root / "proc/device-tree/compatible").write_text("radxa,rock-5b\0rockchip,rk3588\0")
    found = device_state.snapshot(root=root)
    assert not any(name.startswith("GPU") for name in found.values)
    assert "no NVML" in found.absent["GPU clocks, temperature and power"]


def test_the_kernel_fills_in_what_nvml_does_not_give(monkeypatch):
    class Bare:
        """NVML as on a Jetson of JetPack 7: it gives the clock and the load, nothing else."""

        def read(self, figure):
            return {"SM clock": 900, "highest SM clock": 1300, "utilisation": 7}.get(figure)

        def why(self, figure):
            return "Not Supported"

        def close(self):
            pass

    monkeypatch.setattr(device_state, "open_nvml", lambda index: (Bare(), ""))
    found = device_state.snapshot(gpu=0, root=AGX_ORIN)
    assert found.values["GPU SM clock"] == "900 of 1300 MHz"
    assert found.values["GPU utilisation"] == "7 %"
    assert found.values["GPU temperature"] == "43 °C"
    assert "GPU temperature" not in found.absent
    assert "Not Supported" in found.absent["GPU power"]


def test_a_gpu_clock_that_is_not_locked_is_said_where_a_gpu_is_timed(no_nvml):
    def words(root, gpu):
        state = device_state.snapshot(gpu=gpu, root=root)
        return device_state.warnings(state, state, device_state.load_between(state, state))

    assert any("sudo jetson_clocks" in line for line in words(AGX_ORIN, 0))
    assert not any("jetson_clocks" in line for line in [*words(AGX_ORIN, None), *words(ORIN_NANO, 0)])


def test_a_sensor_that_answers_try_again_does_not_end_a_run(monkeypatch, tmp_path, no_nvml):
    """An Orin's cv zones do so; Python makes a TypeError of it."""
    root = shutil.copytree(AGX_ORIN, tmp_path / "board")
    read = Path.read_text

    def read_text(path, *args, **kwargs):
        if path.parent.name in ("thermal_zone1", "thermal_zone2"):
            raise TypeError("can't concat NoneType to bytes")
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    found = device_state.snapshot(gpu=0, root=root).values
    assert found["CPU temperature"] == "48 °C"
    assert "GPU temperature" not in found
