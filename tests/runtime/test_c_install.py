"""The installed C library, moved to another folder: what is there, and that outside programs find and run it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.native_build import compiler, installed_library, pkg_config, run
from support.native_graphs import crashing_graph, mean_graph

from gms_rt.runtime.library import find_openvino

PROGRAM = """
#include <gms_rt.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    static unsigned char image[8 * 8 * 3], mask[8 * 8];
    gmsrt_runner *runner = NULL;
    int i;

    if (argc != 2 || gmsrt_abi_version() != GMSRT_ABI_VERSION) return 2;
    for (i = 0; i < 8 * 8 * 3; i++) image[i] = 7;
    if (gmsrt_open_cpu(argv[1], NULL, &runner) != GMSRT_OK || gmsrt_infer(runner, image, 1, mask) != GMSRT_OK) {
        fprintf(stderr, "%s\\n", gmsrt_last_error());
        return 1;
    }
    gmsrt_close(runner);
    for (i = 0; i < 8 * 8; i++)
        if (mask[i] != 7) return 3;
    puts("segmented");
    return 0;
}
"""
CMAKE = """
cmake_minimum_required(VERSION 3.15)
project(outside C)
find_package(gms_rt 0.1 REQUIRED)
add_executable(outside-shared outside.c)
target_link_libraries(outside-shared gms_rt::gms_rt)
add_executable(outside-static outside.c)
target_link_libraries(outside-static gms_rt::static)
add_custom_command(TARGET outside-static POST_BUILD
                   COMMAND ${CMAKE_COMMAND} -E copy $<TARGET_FILE:gms_rt::trial> $<TARGET_FILE_DIR:outside-static>)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a program outside the project."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "outside.c").write_text(PROGRAM)
    (folder / "CMakeLists.txt").write_text(CMAKE)
    return folder


@pytest.fixture(scope="module")
def with_cmake(source: Path) -> Path:
    """What `find_package` makes of that program, shared and static."""
    prefix, build = installed_library(), source / "build"
    run(["cmake", "-S", str(source), "-B", str(build), f"-DCMAKE_PREFIX_PATH={prefix}"])
    run(["cmake", "--build", str(build)])
    return build


def segments(program: Path, tmp_path: Path, **env: str) -> None:
    """The program runs a graph, and survives one that crashes OpenVINO: so it has found and run the trial."""
    env = {**os.environ, "GMS_RT_OPENVINO": str(find_openvino()), "XDG_CACHE_HOME": str(tmp_path / "cache"), **env}
    graph, bad = mean_graph(tmp_path / "mean.onnx"), crashing_graph(tmp_path / "bad.onnx")
    done = subprocess.run([program, graph], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "segmented\n"), done.stderr
    done = subprocess.run([program, bad], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "bad.onnx: " in done.stderr and done.stderr.count("\n") == 1
    assert "tried in a process of its own" in done.stderr


def needed(program: Path) -> str:
    return subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout


def test_what_is_installed() -> None:
    installed = installed_library()
    library = installed / "lib" / "libgms_rt.so"
    real = library.resolve().name
    version, abi = real.removeprefix("libgms_rt.so."), library.readlink().name.removeprefix("libgms_rt.so.")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version) and abi.isdigit()
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if not path.is_dir()}
    assert files >= {
        "include/gms_rt.h",
        "lib/libgms_rt.a",
        f"lib/libgms_rt.so.{abi}",
        "lib/cmake/gms_rt/gms_rt-config.cmake",
        "lib/cmake/gms_rt/gms_rt-config-version.cmake",
        "lib/pkgconfig/gms_rt.pc",
        "lib/pkgconfig/gms_rt-static.pc",
        f"libexec/gms_rt/{version}/gmsrt-trial",
    }
    assert "openvino" not in needed(library) and "cuda" not in needed(library)


def test_no_file_names_the_folder_of_its_first_installation() -> None:
    """Nor the build's: every text that is installed works wherever it is moved."""
    installed = installed_library()
    texts = [path for path in installed.rglob("*") if path.suffix in (".pc", ".cmake", ".h", ".hpp")]
    assert len(texts) >= 6
    assert [path for path in texts if str(installed.parent) in path.read_text()] == []


@pytest.mark.parametrize("name", ["outside-shared", "outside-static"])
def test_find_package(with_cmake: Path, tmp_path: Path, name: str) -> None:
    segments(with_cmake / name, tmp_path)
    assert ("libgms_rt" in needed(with_cmake / name)) == (name == "outside-shared")


def test_pkg_config_of_the_shared_library(source: Path, tmp_path: Path) -> None:
    """A plain program in another folder: the library finds its own trial program."""
    program = tmp_path / "outside"
    flags = pkg_config("gms_rt", "--cflags", "--libs")
    run([compiler(), str(source / "outside.c"), *flags, "-o", str(program)])
    segments(program, tmp_path, LD_LIBRARY_PATH=str(installed_library() / "lib"))
    assert "libgms_rt" in needed(program)


def test_pkg_config_of_the_static_library(source: Path, tmp_path: Path) -> None:
    """A static program finds the trial from bin, as installed; elsewhere it says where it has looked."""
    flags = pkg_config("gms_rt-static", "--cflags", "--libs")
    (installed_library() / "bin").mkdir(exist_ok=True)
    program = installed_library() / "bin" / "outside"
    run([compiler(), str(source / "outside.c"), *flags, "-o", str(program)])
    segments(program, tmp_path)
    assert "libgms_rt" not in needed(program)
    alone = Path(shutil.copy(program, tmp_path / "alone"))
    env = {**os.environ, "GMS_RT_OPENVINO": str(find_openvino()), "XDG_CACHE_HOME": str(tmp_path / "none")}
    done = subprocess.run([alone, tmp_path / "mean.onnx"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"{tmp_path}/gmsrt-trial is missing; copy it next to" in done.stderr


def test_a_static_program_does_not_believe_its_caller_about_its_folder(source: Path, tmp_path: Path) -> None:
    """argv[0] names another folder with a trial program of somebody else: it is not started."""
    flags = pkg_config("gms_rt-static", "--cflags", "--libs")
    (installed_library() / "bin").mkdir(exist_ok=True)
    program = installed_library() / "bin" / "honest"
    run([compiler(), str(source / "outside.c"), *flags, "-o", str(program)])
    foreign = tmp_path / "gmsrt-trial"
    foreign.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    foreign.chmod(0o755)
    env = {**os.environ, "GMS_RT_OPENVINO": str(find_openvino()), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    graph = mean_graph(tmp_path / "mean.onnx")
    called = [str(tmp_path / "outside"), str(graph)]
    (tmp_path / "outside").touch()
    done = subprocess.run(called, executable=program, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "segmented\n"), done.stderr
    assert not (tmp_path / "started").exists()


UNLOADED = """
#include <dlfcn.h>
#include <gms_rt.h>
#include <stdio.h>
#include <time.h>

#define FIND(name) __typeof__(&gmsrt_##name) name = (__typeof__(&gmsrt_##name))dlsym(library, "gmsrt_" #name)

static int called; /* atomic */

static void done(void *user, gmsrt_status status, const char *message)
{
    (void)user;
    (void)message;
    if (status == GMSRT_OK) __atomic_add_fetch(&called, 1, __ATOMIC_RELEASE);
}

int main(int argc, char **argv)
{
    static unsigned char image[8 * 8 * 3], mask[40][8 * 8];
    const struct timespec moment = {0, 1000000};
    void *library = argc == 3 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    gmsrt_runner *runner = NULL;
    int i, waited;

    if (library == NULL) return 2;
    FIND(open_cpu);
    FIND(submit);
    if (open_cpu(argv[2], NULL, &runner) != GMSRT_OK) return 3;
    for (i = 0; i < 40; i++)
        if (submit(runner, image, 1, mask[i], done, NULL, NULL) != GMSRT_OK) return 4;
    dlclose(library);
    for (waited = 0; __atomic_load_n(&called, __ATOMIC_ACQUIRE) < 40 && waited < 60000; waited++)
        nanosleep(&moment, NULL);
    printf("%d\\n", called);
    return 0;
}
"""


def test_unloading_the_library_with_inferences_under_way(tmp_path: Path) -> None:
    """What was submitted is done all the same: the code of its threads stays."""
    installed, source, program = installed_library(), tmp_path / "unloaded.c", tmp_path / "unloaded"
    source.write_text(UNLOADED)
    run([compiler(), "-std=gnu11", str(source), f"-I{installed / 'include'}", "-ldl", "-o", str(program)])
    env = {**os.environ, "GMS_RT_OPENVINO": str(find_openvino()), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [program, installed / "lib/libgms_rt.so", mean_graph(tmp_path / "mean.onnx")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr


OTHER_COPY = """
#include <gms_rt.h>

gmsrt_status gmsrt_infer(gmsrt_runner *runner, const uint8_t *images, size_t count, uint8_t *masks)
{
    (void)runner, (void)images, (void)count, (void)masks;
    return GMSRT_DEVICE_LOST; /* of another version, with another gmsrt_runner */
}
"""
PLUGIN_HOST = """
#include <gms_rt.h>

int main(int argc, char **argv)
{
    static unsigned char image[8 * 8 * 3], mask[8 * 8];
    gmsrt_runner *runner = NULL;
    gmsrt_ticket ticket;

    if (argc != 2 || gmsrt_open_cpu(argv[1], NULL, &runner) != GMSRT_OK) return 2;
    if (gmsrt_submit(runner, image, 1, mask, NULL, NULL, &ticket) != GMSRT_OK) return 3;
    return gmsrt_wait(runner, ticket, -1) == GMSRT_OK ? 0 : 4;
}
"""


def test_another_copy_in_the_process_is_not_called(tmp_path: Path) -> None:
    """A program with the static library exports its functions; the shared library of a plugin must not take those."""
    installed, program = installed_library(), tmp_path / "host"
    for name, text in (("other.c", OTHER_COPY), ("host.c", PLUGIN_HOST)):
        (tmp_path / name).write_text(text)
    sources = [str(tmp_path / "other.c"), str(tmp_path / "host.c")]
    flags = [f"-I{installed / 'include'}", f"-L{installed / 'lib'}", f"-Wl,-rpath,{installed / 'lib'}", "-rdynamic"]
    run([compiler(), *sources, *flags, "-lgms_rt", "-o", str(program)])
    env = {**os.environ, "GMS_RT_OPENVINO": str(find_openvino()), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert subprocess.run([program, mean_graph(tmp_path / "mean.onnx")], env=env, check=False).returncode == 0
