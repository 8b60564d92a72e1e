"""From a run directory to a verified ONNX model directory."""

from export.stage import export_run

__all__ = ["export_run"]
