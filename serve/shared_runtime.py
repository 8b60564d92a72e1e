"""What the sessions of a process that serves many models have in common beside their weights."""

import contextlib
import threading
from types import ModuleType
from typing import Any

from pipeline import native
from pipeline.errors import MachineError
from pipeline.machine import usable_cores

__all__ = ["SharedRuntime"]

_allocator_lock = threading.Lock()
_allocator_registered = False


class SharedRuntime:
    """Threads and working memory for all sessions that are opened with it.

    Both belong to the process: make one, before the first session, and keep to it. The operators of
    engine models run on ``threads`` threads that sleep when idle; sessions of other models have
    threads of their own, as ONNX Runtime's shared ones cannot be kept from spinning after each run.

    Args:
        threads: that work at once on engine models, and for one run of another; 0 takes all cores
            that the process may use.
    """

    def __init__(self, threads: int = 0) -> None:
        self.threads = threads or usable_cores()
        with contextlib.suppress(
            MachineError
        ):  # no library: only engine models need it, and say so
            native.share_threads(self.threads)

    def configure(self, onnxruntime: ModuleType, options: Any, *, engine: bool) -> None:
        """Let a session that is about to be created take part.

        Args:
            onnxruntime: the module.
            options: its session options.
            engine: whether the model is of the format ``engine``.
        """
        _register_allocator(onnxruntime)
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.intra_op_num_threads = 1 if engine else self.threads


def _register_allocator(onnxruntime: ModuleType) -> None:
    """Give ONNX Runtime one arena for the whole process; sessions' own would each keep a peak."""
    global _allocator_registered
    with _allocator_lock:
        if _allocator_registered:
            return
        memory = onnxruntime.OrtMemoryInfo(
            "Cpu",
            onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
            0,
            onnxruntime.OrtMemType.DEFAULT,
        )
        onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({"max_mem": 0}))
        _allocator_registered = True
