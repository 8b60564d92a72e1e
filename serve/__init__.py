"""ONNX Runtime sessions for exported models, and the benchmark that measures them."""
