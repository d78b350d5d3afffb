"""One small exported graph for each kind of tokenizer: an export takes long."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.small_gms import KINDS, small_gms

from gms_rt.model.gms import Gms


@pytest.fixture(scope="session", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Gms, Path]:
    """The pipeline, and its graph at 48×32."""
    pytest.importorskip("diffusers")
    from gms_rt.export.fuse import graph_from_gms
    from gms_rt.export.options import ExportOptions

    gms = small_gms(request.param)
    out = tmp_path_factory.mktemp(request.param) / "small.onnx"
    return gms, graph_from_gms(gms, out, source={"kind": "test"}, options=ExportOptions(48, 32))
