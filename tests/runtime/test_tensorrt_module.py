"""Which TensorRT fits a driver, which is installed, and what to do where they do not go together."""

from __future__ import annotations

import pytest

from gms_rt.runtime import tensorrt_module
from gms_rt.runtime.device import Cpu, Machine
from gms_rt.runtime.tensorrt_module import driver_problem, fitting_extra, how_to_install, tensorrt_version

CPU = Cpu("a processor", "x86_64", 4, ())


def machine(driver: str | None) -> Machine:
    return Machine(CPU, (), driver, "", {})


def install(monkeypatch: pytest.MonkeyPatch, **packages: str) -> None:
    known = {name.replace("_", "-"): version for name, version in packages.items()}
    monkeypatch.setattr(tensorrt_module, "package_version", known.get)


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize(
    ("driver", "extra", "advice"),
    [
        (None, "", "pip install 'gms-rt[{}]'"),
        ("13.1", "", "pip install 'gms-rt[{}]'"),
        ("13.0", "", "pip install 'gms-rt[{}]'"),
        ("12.8", "-cu12", "pip install 'gms-rt[{}-cu12]'"),
        ("12.2", "-cu12", "pip install 'gms-rt[{}-cu12]'"),
        ("11.8", None, "update NVIDIA's driver to r535 or newer"),
    ],
)
def test_the_extra_follows_the_driver(flavour: str, driver: str | None, extra: str | None, advice: str) -> None:
    assert fitting_extra(flavour, machine(driver)) == (None if extra is None else flavour + extra)
    assert how_to_install(flavour, machine(driver)) == advice.format(flavour)
    assert how_to_install("nifti", machine(driver)) == "pip install 'gms-rt[nifti]'"


def test_wheels_that_the_driver_cannot_run_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tensorrt="11.4", tensorrt_cu13="11.4", tensorrt_rtx_cu12_libs="1.7")
    assert driver_problem("tensorrt", machine("12.8")) == (
        "tensorrt-cu13 needs NVIDIA's driver r580 (CUDA 13.0), this one has CUDA 12.8: "
        "pip install 'gms-rt[tensorrt-cu12]'"
    )
    assert "needs NVIDIA's driver r535" in driver_problem("tensorrt-rtx", machine("11.8"))
    for flavour, driver in (
        ("tensorrt", "13.0"),
        ("tensorrt", None),
        ("tensorrt-rtx", "12.4"),
        ("tensorrt-rtx", "13.0"),
    ):
        assert driver_problem(flavour, machine(driver)) == ""
    install(monkeypatch, tensorrt="10.3")  # JetPack's, or a wheel that says nothing of CUDA
    assert driver_problem("tensorrt", machine("12.6")) == ""


def test_wheels_of_either_cuda_count_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tensorrt_cu12="11.4", tensorrt_rtx_cu12_libs="1.7")
    assert (tensorrt_version("tensorrt"), tensorrt_version("tensorrt-rtx")) == ("11.4", "1.7")
    install(monkeypatch, tensorrt="11.5", tensorrt_cu13="11.4", tensorrt_rtx_cu13_bindings="1.8")
    assert (tensorrt_version("tensorrt"), tensorrt_version("tensorrt-rtx")) == ("11.5", "1.8")
    install(monkeypatch)
    assert tensorrt_version("tensorrt-rtx") is None
