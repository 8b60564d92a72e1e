"""The demo's model and data: fetched by hash, unpacked, split. Not part of the installed package."""

__all__: list[str] = []
