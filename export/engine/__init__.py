"""Graphs of our own operators: sparse weights inside the file, found by what a graph computes."""

from export.engine.convert import Converted, convert

__all__ = ["Converted", "convert"]
