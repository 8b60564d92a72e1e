"""``python -m pipeline``: the command line, for `torchrun -m pipeline train ...`."""

from pipeline.cli import main

main()
