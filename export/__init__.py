"""From a run directory, or from an ONNX file, to a verified ONNX model directory."""

from export.onnx_stage import ConvertedFile, convert_file
from export.stage import export_run

__all__ = ["ConvertedFile", "convert_file", "export_run"]
