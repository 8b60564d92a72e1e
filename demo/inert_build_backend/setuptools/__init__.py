"""Stands in for setuptools while `pip download` asks a source archive for its metadata."""

__all__: list[str] = []
