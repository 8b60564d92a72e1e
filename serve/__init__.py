"""ONNX Runtime sessions for exported models, and the benchmark that measures them."""

from pipeline.native import register
from serve.session import Session, open_session

__all__ = ["Session", "open_session", "register"]
