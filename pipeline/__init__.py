"""smp-pipeline: prune pretrained transformers without fine-tuning, as small ONNX files."""

__version__ = "0.1.0"

__all__ = ["__version__"]
