"""The few TensorRT calls that a runner and a profile make, over the fake driver."""

from __future__ import annotations

import types
from typing import Any

from support.fake_cuda import HEIGHT, WIDTH, FakeDriver


class FakeTensorRt(types.ModuleType):
    """A module like tensorrt. `script` changes what its objects do; `events` keeps what happened, in order."""

    def __init__(self, driver: FakeDriver, batch: int, rtx: bool) -> None:
        super().__init__("tensorrt")
        self.__version__ = "11.4.0"
        self.driver, self.batch, self.rtx = driver, batch, rtx
        self.script: dict[str, Any] = {}
        self.events: list[str] = []
        module = self

        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING = range(3)

        class Context:
            def __init__(self) -> None:
                self.addresses: dict[str, int] = {}
                self.profiler: Any = None
                module.events.append("context")

            @property
            def nvtx_verbosity(self) -> str:
                return "detailed"

            @nvtx_verbosity.setter
            def nvtx_verbosity(self, value: str) -> None:
                assert value == "none"
                module.events.append("no marks")

            def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
                return name == "image" and shape == (module.batch, HEIGHT, WIDTH, 3)

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                return (module.batch, HEIGHT, WIDTH, 1)

            def set_tensor_address(self, name: str, address: int) -> bool:
                self.addresses[name] = address
                return True

            def execute_async_v3(self, stream: int) -> bool:
                module.events.append("execute")
                if module.script.get("refuse") == module.events.count("execute"):
                    module.logger.log(ILogger.ERROR, "no such kernel")
                    return False
                for name, milliseconds in module.script.get("layers", ()) if self.profiler else ():
                    self.profiler.report_layer_time(name, milliseconds * (1 + module.events.count("execute") % 3))
                size = module.batch * HEIGHT * WIDTH
                return bool(driver.copy(self.addresses["mask"], self.addresses["image"], size, stream) == 0)

            def __del__(self) -> None:
                module.events.append("context dropped")

        class RtxContext(Context):
            def is_stream_capturable(self, stream: int) -> bool:
                assert stream and "execute" in module.events
                return bool(module.script.get("capturable", True))

        class Engine:
            num_io_tensors = 2

            def get_tensor_name(self, index: int) -> str:
                return ("image", "mask")[index]

            def get_tensor_mode(self, name: str) -> str:
                return {"image": "in", "mask": "out"}[name]

            def get_tensor_dtype(self, name: str) -> str:
                return str(module.script.get("type", "u8"))

            def create_engine_inspector(self) -> Any:
                return types.SimpleNamespace(
                    execution_context=None,
                    get_engine_information=lambda kind: {"json": module.script.get("inspected", "{}")}[kind],
                )

            def create_execution_context(self, config: Any = None) -> Context | None:
                if module.script.get("no context"):
                    return None
                if module.rtx:
                    assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
                    assert config.cuda_graph_strategy == "disabled"
                else:
                    assert config is None
                return RtxContext() if module.rtx else Context()

            def __del__(self) -> None:
                module.events.append("engine dropped")

        class RuntimeCache:
            def __init__(self) -> None:
                self.content = b""

            def deserialize(self, blob: bytes) -> bool:
                module.events.append(f"kernels taken: {bytes(blob)!r}")
                if module.script.get("other driver"):
                    return False
                self.content = bytes(blob)
                return True

            def serialize(self) -> bytes:
                return self.content or module.script.get("kernels", b"compiled here")

        class RuntimeConfig(types.SimpleNamespace):
            def create_runtime_cache(self) -> RuntimeCache:
                module.events.append("runtime cache")
                return RuntimeCache()

            def set_runtime_cache(self, cache: RuntimeCache) -> bool:
                self.cache = cache
                return True

        class RtxEngine(Engine):
            def create_runtime_config(self) -> RuntimeConfig:
                return RuntimeConfig()

        class Runtime:
            def __init__(self, logger: Any) -> None:
                module.logger = logger

            def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
                if content != b"a plan":
                    module.logger.log(ILogger.WARNING, "never mind")
                    module.logger.log(ILogger.ERROR, "magic tag does not match")
                    return None
                return RtxEngine() if module.rtx else Engine()

        class IProfiler:
            """TensorRT's; `report_layer_time` is what a listener writes."""

        self.ILogger, self.Runtime, self.IProfiler = ILogger, Runtime, IProfiler
        self.LayerInformationFormat = types.SimpleNamespace(JSON="json")
        self.TensorIOMode = types.SimpleNamespace(INPUT="in", OUTPUT="out")
        self.DataType = types.SimpleNamespace(UINT8="u8")
        self.ProfilingVerbosity = types.SimpleNamespace(NONE="none", DETAILED="detailed")
        if rtx:
            self.DynamicShapesKernelSpecializationStrategy = types.SimpleNamespace(EAGER="eager")
            self.CudaGraphStrategy = types.SimpleNamespace(DISABLED="disabled")
