"""A MONAI bundle: metadata with the network's data format, an inference configuration, the graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gms_rt.artifacts import write_json
from gms_rt.pack.contents import EngineContents
from gms_rt.pack.host import Host, PackOptions, installed_version, shared_values, template, write_template


def _write(contents: EngineContents, folder: Path, options: PackOptions) -> Mapping[str, str]:
    values = shared_values(contents) | {
        "monai": installed_version("monai", "1.4.0"),
        "openvino": installed_version("openvino", "2025.2.0"),
    }
    (folder / "models").mkdir()
    contents.write_ir(folder / "models/model.xml")
    write_json(folder / "configs/metadata.json", bundle_metadata(contents))
    write_json(folder / "configs/inference.json", inference_config())
    (folder / "docs").mkdir()
    (folder / "docs/README.md").write_text("See ../README.md. Not for clinical use.\n", encoding="utf-8")
    (folder / "scripts").mkdir()
    (folder / "scripts/__init__.py").write_text("", encoding="utf-8")
    write_template("monai/segmenter.py", folder / "scripts/segmenter.py", values)
    write_template("monai/client.py", folder / "client.py", values)
    return values | {"steps": template("monai/steps.md")}


def bundle_metadata(contents: EngineContents) -> dict[str, Any]:
    """`metadata.json`, with the keys that MONAI's schema asks for."""
    manifest = contents.manifest
    image = {"type": "image", "format": "magnitude", "modality": "n/a", "dtype": "uint8", "value_range": [0, 255]}
    shape = [manifest.height, manifest.width]
    names = {"0": "background"} | {str(number): name for number, name in enumerate(contents.labels, 1)}
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": f"made by gms-rt {manifest.gms_rt}"},
        "monai_version": installed_version("monai", "1.4.0"),
        "pytorch_version": installed_version("torch", "2.4.0"),
        "numpy_version": installed_version("numpy", "1.26.0"),
        "required_packages_version": {"openvino": installed_version("openvino", "2025.2.0")},
        "task": "2-D segmentation",
        "description": f"{contents.name}, {manifest.precision}, built by gms-rt",
        "authors": "see README.md",
        "copyright": "see LICENSE",
        "data_type": "image",
        "intended_use": "Research. Not for clinical use.",
        "gms_rt": contents.identity,
        "network_data_format": {
            "inputs": {
                "image": image
                | {"num_channels": 3, "spatial_shape": shape, "is_patch_data": False, "channel_def": _RGB}
            },
            "outputs": {
                "pred": image
                | {
                    "format": "segmentation",
                    "num_channels": 1,
                    "spatial_shape": shape,
                    "is_patch_data": False,
                    "channel_def": names,
                }
            },
        },
    }


def inference_config() -> dict[str, Any]:
    """`inference.json`: pictures of a folder to masks, by MONAI's own configuration language."""
    return {
        "imports": ["$import glob", "$import os", "$import sys", "$sys.path.insert(0, @bundle_root)"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/pictures'",
        "output_dir": "$@bundle_root + '/eval'",
        "segmenter": {"_target_": "scripts.segmenter.Segmenter", "model": "$@bundle_root + '/models/model.xml'"},
        "pictures": "$sorted(glob.glob(@dataset_dir + '/*'))",
        "run": ["$[@segmenter.segment_file(path, @output_dir) for path in @pictures]"],
    }


_RGB = {"0": "red", "1": "green", "2": "blue"}
HOST = Host("monai-bundle", "MONAI", _write, tried=True)
