"""From a run directory, a delta or an ONNX file to a verified ONNX model directory or a delta."""

from export.delta_stage import export_delta
from export.onnx_stage import ConvertedFile, convert_file
from export.stage import export_run

__all__ = ["ConvertedFile", "convert_file", "export_delta", "export_run"]
