"""What a service counts, in base units, as Prometheus reads it from `/metrics`. No label comes from a client."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gms_rt import __version__

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Counters:
    """The counters of one service; each service has its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("gms_rt_requests", "Requests answered", ["api", "status"], **own)
        self.request_seconds = Histogram(
            "gms_rt_request_seconds", "From the head of a request to the end of its answer", ["api"],
            buckets=_SECONDS, **own,
        )  # fmt: skip
        self.refusals = Counter("gms_rt_refusals", "Requests not done, by reason", ["reason"], **own)
        self.received = Counter("gms_rt_received_bytes", "Bytes of request bodies", **own)
        self.sent = Counter("gms_rt_sent_bytes", "Bytes of answers", **own)
        self.waiting = Gauge("gms_rt_requests_waiting", "Requests taken that no thread works on yet", **own)
        self.running = Gauge("gms_rt_requests_running", "Requests that a thread works on", **own)
        self.held = Gauge("gms_rt_held_bytes", "Bytes of request bodies held now", **own)
        self.frames = Counter("gms_rt_frames", "Images segmented", ["model", "status"], **own)
        self.queue_images = Gauge("gms_rt_queue_images", "Images that wait for an engine", ["model"], **own)
        self.batch_images = Histogram("gms_rt_batch_images", "Images per inference", ["model"], buckets=_IMAGES, **own)
        self.late_images = Counter("gms_rt_late_images", "Images dropped before inference", ["model"], **own)
        self.stage_seconds = Histogram(
            "gms_rt_stage_seconds", "Where the time of an image goes", ["stage"], buckets=_SECONDS, **own
        )
        self.ready = Gauge("gms_rt_ready", "1 once the golden pictures of every engine have passed", **own)
        self.about = Gauge("gms_rt_info", "The engines that are served", ["model", "precision", "device", "version"],
                           **own)  # fmt: skip

    def name_engine(self, model: str, precision: str, device: str) -> None:
        """Say that an engine is served."""
        self.about.labels(model, precision, device, __version__).set(1)

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self.registry)
