"""The hosts by name; each module is imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from gms_rt.errors import UsageError
from gms_rt.pack.host import Host

HOSTS = {
    "openvino": "gms_rt.pack.openvino",
    "onnxruntime": "gms_rt.pack.onnxruntime",
    "triton": "gms_rt.pack.triton",
    "ovms": "gms_rt.pack.ovms",
    "browser": "gms_rt.pack.browser",
    "monai-bundle": "gms_rt.pack.monai_bundle",
    "huggingface": "gms_rt.pack.huggingface",
    "holoscan": "gms_rt.pack.holoscan",
    "deepstream": "gms_rt.pack.deepstream",
}


def host_from_name(name: str) -> Host:
    """A host."""
    if name not in HOSTS:
        raise UsageError(f"unknown host '{name}'", where="--for", fix=f"use {', '.join(HOSTS)}")
    host: Host = importlib.import_module(HOSTS[name]).HOST
    return host


def hosts_from_names(texts: Sequence[str]) -> list[Host]:
    """Hosts from repeated or comma-separated names; `all` is every one."""
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("names no host", where="--for", fix=f"use {', '.join(HOSTS)}")
    return [host_from_name(name) for name in dict.fromkeys(HOSTS if "all" in names else names)]
