"""The demo's model and data: fetched by hash, unpacked, split. Not installed with the package."""

__all__: list[str] = []
