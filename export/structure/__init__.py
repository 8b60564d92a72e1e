"""Neurons and attention heads that masks leave empty, taken out of a graph exactly."""

from export.structure.removal import RemoveEmptyStructure

__all__ = ["RemoveEmptyStructure"]
