"""What a bench found, as plain frozen data; reports are made of these.

Times are milliseconds unless a name says seconds. Whatever could not be measured is None, with a sentence why.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Of fields that reports did not have from the start: left out where there is nothing in them.
LATER = {"later": True}


@dataclass(frozen=True)
class Latency:
    """One distribution of milliseconds (percentiles by trtexec's index rule; `cov` is in percent)."""

    count: int
    min: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    max: float
    cov: float


@dataclass(frozen=True)
class DeviceReading:
    """One property of the device before and after a run; where both are None, `why` says why."""

    name: str
    before: str | None
    after: str | None
    why: str = ""


@dataclass(frozen=True)
class Load:
    """What else the machine did during the run, in percent of all cores; None where it cannot be known."""

    others: float | None
    stolen: float | None
    why: str = ""


@dataclass(frozen=True)
class Energy:
    """Energy over the timed rounds, idle draw included; absent with the reason.

    `idle_watts` is the draw with everything open and nothing running, before the first round.
    """

    joules_per_image: float | None
    watts: float | None
    source: str = ""
    why: str = ""
    idle_watts: float | None = None


@dataclass(frozen=True)
class ColdStart:
    """A fresh process: opening the engine, its first inference, and the memory it then holds."""

    load_ms: float | None  # as a second start: on a CPU the compiled graph is kept from the first
    first_inference_ms: float | None
    host_bytes: int | None  # peak resident memory of the whole process
    interpreter_bytes: int | None  # of which before the engine was opened
    device_bytes: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Measured:
    """One engine or peer, timed in rounds between those of the others.

    `total` = h2d + compute + d2h. `rounds` are the medians of the rounds, `low` and `high` the 95 % interval of their
    median: what two reports are compared by. `curve` has 101 quantiles of `total`.
    """

    name: str
    kind: str  # "engine" or "peer"
    source: str  # the folder or file
    precision: str
    execution: str
    backend: str
    device: str
    batch: int
    lanes: int
    threads: int
    size: tuple[int, ...]
    identity: str  # SHA-256 of engine.json or of the peer's model file
    total: Latency
    compute: Latency
    h2d: Latency
    d2h: Latency
    enqueue: Latency
    throughput: float  # images per second
    seconds: float  # timed wall time
    warmup_seconds: float
    rounds: tuple[float, ...]
    low: float
    high: float
    curve: tuple[float, ...]
    cold: ColdStart
    energy: Energy
    settings: tuple[str, ...] = ()  # transfers, CUDA graph, spin-wait: what the definition leaves open
    warnings: tuple[str, ...] = ()
    parameters: int | None = None
    flop: float | None = None
    reference_dice: float | None = None  # a peer's masks against the FP32 reference
    truth_dice: float | None = None  # and against the truth


@dataclass(frozen=True)
class SweepPoint:
    """One point of the throughput-latency curve."""

    engine: str
    batch: int
    lanes: int
    median: float
    p95: float
    throughput: float


@dataclass(frozen=True)
class WaterfallStep:
    """One step on the way from file to mask, median milliseconds per image."""

    name: str
    milliseconds: float
    inside_engine: bool = False


@dataclass(frozen=True)
class Waterfall:
    """Where the time goes from an image file to a written mask."""

    engine: str
    image: str
    source_size: tuple[int, ...]
    stages: tuple[WaterfallStep, ...]
    repeats: int


@dataclass(frozen=True)
class Ceiling:
    """A limit of this machine, measured in the same run."""

    name: str
    value: float
    unit: str
    how: str


@dataclass(frozen=True)
class RooflineRow:
    """How near one engine runs to the machine's limits."""

    engine: str
    gflop: float
    megabytes: float
    gflops: float  # reached
    ceiling_gflops: float
    ceiling: str
    bound_ms: float  # the shortest time that the ceilings allow
    share: float  # bound / measured, 1 is the limit
    limited_by: str  # "arithmetic" or "memory"


@dataclass(frozen=True)
class Roofline:
    """Measured ceilings and every engine against them, or why there is none."""

    ceilings: tuple[Ceiling, ...] = ()
    rows: tuple[RooflineRow, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class StageTime:
    """The layers of one stage together."""

    stage: str
    milliseconds: float


@dataclass(frozen=True)
class LayerRow:
    """One layer as the device runs it."""

    name: str
    stage: str
    kind: str  # the runtime's name for what it is
    arithmetic: str  # really executed; "" where the runtime does not say
    milliseconds: float
    gflop: float
    distance: float | None  # of what it puts out to FP32's, relative


@dataclass(frozen=True)
class EngineLayers:
    """Where one engine's time goes, and where its values leave FP32's; the layer that differs most first."""

    engine: str
    device: str
    milliseconds: float  # of all layers together; with a profile an inference is slower than without
    stages: tuple[StageTime, ...]
    layers: tuple[LayerRow, ...]
    worth: tuple[str, ...]  # layers that add most to the distance: worth a better type
    timed: str  # by what
    compared: str  # what the distances are relative to


@dataclass(frozen=True)
class BenchResult:
    """All that one run measured."""

    created: str
    device: str
    state: tuple[DeviceReading, ...]
    load: Load
    measured: tuple[Measured, ...]
    round_count: int
    round_seconds: float
    images: int
    warnings: tuple[str, ...] = ()
    sweep: tuple[SweepPoint, ...] = ()
    sweep_why: str = ""
    waterfalls: tuple[Waterfall, ...] = ()
    roofline: Roofline = Roofline(why="not asked for")
    layers: tuple[EngineLayers, ...] = field(default=(), metadata=LATER)
    layers_why: str = field(default="", metadata=LATER)  # why an engine's layers are not there
