"""Other engines that run the first model of a benchmark: one file an engine."""

from serve.peers.check import check_peer
from serve.peers.peer import LoadPytorch, Peer
from serve.peers.registry import open_peer

__all__ = ["LoadPytorch", "Peer", "check_peer", "open_peer"]
