"""The TensorRT runner, for both flavours: TensorRT binds and queues, the C library captures, replays, copies and times.

The device is probed through the driver before TensorRT is touched, because TensorRT without a driver can end the
process. A lane is one execution context on its own stream; addresses never change, so its captured graph stays valid.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from gms_rt.arrays import U8
from gms_rt.errors import ArtifactError, NativeError, UsageError
from gms_rt.runtime.base import Runner, RunnerInfo, Timings
from gms_rt.runtime.binding import NativeRunner
from gms_rt.runtime.cuda import CudaLane, LaneCalls, probe_cuda
from gms_rt.runtime.kernel_cache import KeptKernels
from gms_rt.runtime.options import CudaSettings
from gms_rt.runtime.tensorrt_layers import LayerWatch
from gms_rt.runtime.tensorrt_module import MODULES, load_tensorrt, tensorrt_log


class TensorRtRunner(Runner):
    """A plan on an NVIDIA GPU, replayed as a CUDA graph.

    `flavour` is "tensorrt" or "tensorrt-rtx"; `settings` has the shape that the plan was built for. Deserialising a
    plan runs its code, so whoever opens one must know who made it: `content` is what the file holds, read and checked;
    without it the file is read here. `kernels` are what TensorRT-RTX compiled for this plan at earlier starts.
    `execution` is the arithmetic that the typed graph prescribes, for reports. `watch` hears how long each layer takes:
    for one lane without a CUDA graph, and slower than without.
    """

    def __init__(
        self,
        plan: Path,
        flavour: str,
        settings: CudaSettings,
        *,
        content: bytes | None = None,
        kernels: KeptKernels | None = None,
        execution: str = "as built",
        watch: LayerWatch | None = None,
    ) -> None:
        if flavour not in MODULES:
            raise UsageError(f"unknown flavour '{flavour}'", fix=f"use {' or '.join(MODULES)}")
        gpu = probe_cuda(settings.device, driver=settings.driver)
        try:
            content = plan.read_bytes() if content is None else content
        except OSError as error:
            raise ArtifactError(f"the plan cannot be read ({error.strerror})", where=plan) from error
        primary = pycuda_context(settings.device) if settings.driver is None else None
        session = _Session(plan, content, load_tensorrt(flavour, f"running {flavour} plans"), settings)
        session.watch = watch
        session.use_kernels(kernels, f"{session.version} on {gpu.name}, SM{gpu.sm}")
        try:
            self._native = NativeRunner.open_cuda(
                settings, LaneCalls(session.enqueue, session.prepare, session.release)
            )
            session.keep_kernels()
        except BaseException:
            session.abandon()
            raise
        finally:
            if primary is not None:
                primary.pop()
        self._primary = primary
        self._session = session
        about = self._native.info
        super().__init__(
            RunnerInfo(
                backend=flavour,
                batch=settings.batch,
                height=settings.height,
                width=settings.width,
                device=about.device,
                execution=execution,
                lanes=about.lanes,
                details={
                    "runtime": about.runtime,
                    "version": session.version,
                    "gpu": settings.device,
                    "sm": gpu.sm,
                    "cuda_graphs": about.graphs,
                    "open_ms": round(about.open_ms, 3),
                    **({"notice": about.notice} if about.notice else {}),
                },
            )
        )

    def _infer(self, images: U8, probabilities: U8) -> None:
        self._native.infer(images, probabilities)

    def _bench(self, images: U8, seconds: float, iterations: int, warmup: float) -> Timings:
        return self._native.bench(images, seconds=seconds, iterations=iterations, warmup=warmup)

    def _close(self) -> None:
        self._native.close()
        self._session.abandon()
        self._primary = None


class _Session:
    """The TensorRT objects of one runner. All calls come from the C library with the device's context current."""

    def __init__(self, plan: Path, content: bytes, module: Any, settings: CudaSettings) -> None:
        self.plan = plan
        self.content = content
        self.trt = module
        self.version = str(module.__version__)
        self.shape = (settings.batch, settings.height, settings.width)
        self.log = tensorrt_log(module)
        self.heard = self.log.listen()
        self.capturable: dict[int, bool] = {}  # by lane, as TensorRT says once it has run there
        self.runtime: Any = None
        self.engine: Any = None
        self.names = ("", "")
        self.contexts: dict[int, Any] = {}
        self.kernels: KeptKernels | None = None
        self.stack = ""  # what they are for
        self.watch: LayerWatch | None = None
        self._compiled: Any = None  # TensorRT-RTX's runtime cache, of all contexts
        self._kept = b""  # what was in the file

    def use_kernels(self, kernels: KeptKernels | None, stack: str) -> None:
        """Take kernels from earlier starts on this stack, and keep those of this one."""
        self.kernels, self.stack = kernels, stack

    def prepare(self, lane: CudaLane) -> None:
        """One execution context for this lane, bound to its buffers."""
        if self.engine is None:
            self._deserialise()
        context = self._create_context()
        if context is None:
            raise NativeError(self._words("TensorRT cannot create an execution context"), where=self.plan)
        batch, height, width = self.shape
        image, mask = self.names
        good = context.set_input_shape(image, (batch, height, width, 3))
        good = good and context.set_tensor_address(image, lane.images)
        good = good and context.set_tensor_address(mask, lane.masks)
        if not good or tuple(context.get_tensor_shape(mask)) not in ((batch, height, width, 1), (batch, height, width)):
            raise ArtifactError(
                self._words(f"the plan does not take {batch} images of {height}×{width}"),
                where=self.plan,
                fix="build the engine again",
            )
        if hasattr(context, "nvtx_verbosity"):  # marks for a profiler, which cost time on the host
            context.nvtx_verbosity = self.trt.ProfilingVerbosity.NONE
        if self.watch is not None:
            self.watch.attach(self.trt, self.engine, context)
        self.contexts[lane.index] = context

    def enqueue(self, lane: CudaLane) -> None:
        """Queue one inference; a refusal must not go unnoticed, or a graph without work would be replayed."""
        # No name for the context here: the frame of an error would keep it alive when its device memory is gone.
        if lane.capturing and not self.capturable.get(lane.index, True):
            raise NativeError("TensorRT says that this plan cannot be captured", where=self.plan, fix="build it again")
        if not self.contexts[lane.index].execute_async_v3(lane.stream):
            raise NativeError(self._words("TensorRT refused to queue the inference"), where=self.plan)
        if lane.index not in self.capturable and hasattr(self.contexts[lane.index], "is_stream_capturable"):
            self.capturable[lane.index] = bool(self.contexts[lane.index].is_stream_capturable(lane.stream))

    def release(self) -> None:
        """Drop contexts, compiled kernels, engine and runtime, in this order."""
        self.contexts.clear()
        self._compiled = None
        self.engine = None
        self.runtime = None
        self.log.stop(self.heard)

    def abandon(self) -> None:
        """Keep for ever what was not released: a device that hangs uses it still, and freeing it would wait."""
        self.log.stop(self.heard)
        if self.contexts:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))

    def _deserialise(self) -> None:
        self.runtime = self.trt.Runtime(self.log.logger)
        self.engine = self.runtime.deserialize_cuda_engine(self.content)
        self.content = b""
        if self.engine is None:
            raise ArtifactError(
                self._words("TensorRT cannot load this plan"),
                where=self.plan,
                fix=f"build the engine again for this device and TensorRT {self.version}",
            )
        mode = self.trt.TensorIOMode
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        inputs = [n for n in names if self.engine.get_tensor_mode(n) == mode.INPUT]
        outputs = [n for n in names if self.engine.get_tensor_mode(n) == mode.OUTPUT]
        kinds = {self.engine.get_tensor_dtype(n) for n in names}
        if len(inputs) != 1 or len(outputs) != 1 or kinds != {self.trt.DataType.UINT8}:
            raise ArtifactError(
                f"the plan has inputs {inputs} and outputs {outputs} of {sorted(str(k) for k in kinds)},"
                " it must have one uint8 image and one uint8 mask",
                where=self.plan,
            )
        self.names = (inputs[0], outputs[0])

    def _create_context(self) -> Any:
        if not hasattr(self.engine, "create_runtime_config"):
            return self.engine.create_execution_context()
        config = self.engine.create_runtime_config()
        # A kernel that is swapped later would invalidate the captured graph; and the capture is ours.
        if hasattr(self.trt, "DynamicShapesKernelSpecializationStrategy"):
            eager = self.trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        if hasattr(self.trt, "CudaGraphStrategy"):
            config.cuda_graph_strategy = self.trt.CudaGraphStrategy.DISABLED
        if self.kernels is not None and hasattr(config, "create_runtime_cache"):
            if self._compiled is None:
                self._compiled = config.create_runtime_cache()
                self._kept = self.kernels.read(self.stack)
                if self._kept and not self._compiled.deserialize(self._kept):
                    self._kept = b""  # of another driver: compiled again, and kept anew
            config.set_runtime_cache(self._compiled)
        return self.engine.create_execution_context(config)

    def keep_kernels(self) -> None:
        """Keep what was compiled for the next start, now that every lane has run once."""
        if self.kernels is not None and self._compiled is not None:
            compiled = bytes(self._compiled.serialize())
            if compiled and compiled != self._kept:
                self.kernels.write(self.stack, compiled)

    def _words(self, what: str) -> str:
        said = "; ".join(self.heard.last(3))
        return f"{what} ({said})" if said else what


def pycuda_context(device: int) -> Any:
    """The device's primary context, current on this thread, where pycuda is installed; else the C library's own.

    Both are the same context. Held by pycuda, it outlives this runner for a program that uses pycuda itself.
    """
    if importlib.util.find_spec("pycuda") is None:
        return None
    try:
        cuda = importlib.import_module("pycuda.driver")
    except ImportError:
        return None  # built for another CUDA
    cuda.init()
    context = cuda.Device(device).retain_primary_context()
    context.push()
    return context
