"""The part of TensorRT's Python module that a build uses: it builds nothing and remembers what it was asked for."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class FakeBuilderModule(types.ModuleType):
    """A module like tensorrt (or, with `rtx`, its sibling) with a builder. `asked` is what the configuration got."""

    def __init__(self, *, rtx: bool = False, version: str = "11.4.0") -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.asked: dict[str, Any] = {}
        self.loggers: list[Any] = []
        self.current: list[int] = []  # devices that are current now
        self.built_on: list[tuple[int, ...]] = []
        module = self

        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING = range(3)

        class Cache:
            def serialize(self) -> bytes:
                return b"times"

        class Config:
            num_compute_capabilities = 0

            def create_timing_cache(self, earlier: bytes) -> Cache:
                module.asked["earlier"] = earlier
                return Cache()

            def set_timing_cache(self, cache: Cache, ignore: bool) -> None:
                pass

            def get_timing_cache(self) -> Cache:
                return Cache()

            def set_memory_pool_limit(self, pool: str, size: int) -> None:
                module.asked[pool] = size

            def set_flag(self, flag: str) -> None:
                module.asked.setdefault("flags", []).append(flag)

            def set_compute_capability(self, capability: int, index: int) -> bool:
                module.asked["sm"] = capability
                return True

        network = types.SimpleNamespace(get_input=lambda index: types.SimpleNamespace(shape=(1, 8, 8, 3)), num_layers=0)

        class Builder:
            def __init__(self, logger: Any) -> None:
                module.loggers.append(logger)

            def create_network(self, flags: int) -> Any:
                return network

            def create_builder_config(self) -> Config:
                return Config()

            def build_serialized_network(self, network: Any, config: Config) -> bytes:
                module.built_on.append(tuple(module.current))
                return b"a plan"

        class OnnxParser:
            def __init__(self, network: Any, logger: Any) -> None:
                module.loggers.append(logger)

            def parse(self, graph: bytes) -> bool:
                return True

        class Runtime:
            def __init__(self, logger: Any) -> None:
                module.loggers.append(logger)

            def deserialize_cuda_engine(self, plan: bytes) -> None:
                module.asked["inspected"] = True

        self.ILogger, self.Builder, self.OnnxParser, self.Runtime = ILogger, Builder, OnnxParser, Runtime
        self.NetworkDefinitionCreationFlag = types.SimpleNamespace(STRONGLY_TYPED=1)
        self.MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")
        self.BuilderFlag = types.SimpleNamespace(**({"REQUIRE_USER_ALLOCATION": "user allocation"} if rtx else {}))
        if rtx:
            self.ComputeCapability = types.SimpleNamespace(SM75=75, SM80=80, SM86=86, SM89=89, SM120=120)

    @contextmanager
    def current_device(self, device: int) -> Iterator[None]:
        """Instead of the driver's."""
        self.current.append(device)
        yield
        self.current.pop()
