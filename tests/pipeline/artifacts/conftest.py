"""Run directories with random masks, as the tests of the export stage have them."""

from tests.export.conftest import make_run, random_run

__all__ = ["make_run", "random_run"]
