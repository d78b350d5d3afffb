"""A computation on a GPU as one CUDA graph: recorded for each shape of its inputs, replayed with one launch.

A training step launches thousands of small kernels, which takes the processor longer than the GPU. What is recorded
does the same at every call: no random numbers, no choice that depends on values, no waiting, and nothing but its
results. They lie in memory that the next call overwrites.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Results = TypeVar("Results")

_REHEARSALS = 3  # calls before recording, in which libraries choose their kernels and make their workspaces


@dataclass(frozen=True)
class _Recording(Generic[Results]):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    results: Results


class Replay(Generic[Results]):
    """The same as `function`, for tensors on a GPU and names that tell it what to do."""

    def __init__(self, function: Callable[..., Results]) -> None:
        self._function = function
        self._recordings: dict[tuple[object, ...], _Recording[Results]] = {}
        self._possible = True

    def __call__(self, *arguments: Tensor | str) -> Results:
        """What the function gives for these."""
        if not self._possible:
            return self._function(*arguments)
        key = tuple(given if isinstance(given, str) else (given.shape, given.dtype) for given in arguments)
        found = self._recordings.get(key)
        if found is None:
            try:
                found = self._recordings[key] = self._record(arguments)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:  # an operation that waits, as a foreign tokenizer may have
                self._possible = False
                reason = str(error).strip().partition("\n")[0]
                warnings.warn(f"a step cannot be one CUDA graph, so it is launched in parts: {reason}", stacklevel=2)
                return self._function(*arguments)
        tensors = (given for given in arguments if isinstance(given, Tensor))
        for held, given in zip(found.inputs, tensors, strict=True):
            held.copy_(given, non_blocking=True)
        found.graph.replay()
        return found.results

    def _record(self, arguments: tuple[Tensor | str, ...]) -> _Recording[Results]:
        held = [given if isinstance(given, str) else given.detach().clone() for given in arguments]
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_REHEARSALS):
                self._function(*held)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may copy meanwhile
            results = self._function(*held)
        return _Recording(graph, [given for given in held if isinstance(given, Tensor)], results)
