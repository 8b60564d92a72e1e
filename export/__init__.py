"""From a run directory to a verified ONNX model directory."""
