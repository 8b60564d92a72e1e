"""`smp-pipeline` in forks of a process that has imported torch and the rest, which takes seconds.

As ``python -m tests.preloaded DIRECTORY TRACES`` it is that process; it ends when its stdin does.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.traces import traced_once

ROOT = Path(__file__).parents[1]
# None that starts a thread, as datasets, sklearn and onnxruntime do: a fork would be without it.
MODULES = (
    *("torch", "torch._dynamo", "torch.onnx._internal.exporter._core", "onnx", "onnxscript"),
    *("transformers", "transformers.models.bert.modeling_bert", "accelerate"),
)
# Of its own process, and without the packages, which it does not need: it is there at once.
CLIENT = """\
#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    request = {{
        "arguments": sys.argv,
        "directory": os.getcwd(),
        "environment": dict(os.environ),
    }}
    os.chdir({directory!r})  # the whole path may be too long for a socket's
    try:
        connection.connect("socket")
    except OSError as error:
        sys.exit(f"the process that tests/preloaded.py started has ended ({{error}})")
    socket.send_fds(connection, [b"\\0"], [0, 1, 2])
    connection.sendall(json.dumps(request).encode() + b"\\n")
    answers = connection.makefile()
    child = int(answers.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: os.kill(child, received))
    code = int(answers.readline() or 1)
sys.exit(code if code >= 0 else 128 - code)
"""


@contextlib.contextmanager
def preloaded(directory: Path, traces: Path) -> Iterator[Path]:
    """Start the process, and end it with the block; gives the command.

    Args:
        directory: an empty one; the command in it is alone, for PATH.
        traces: where :func:`tests.traces.traced_once` keeps them.
    """
    command = directory / "bin" / "smp-pipeline"
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.preloaded", str(directory), str(traces)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdin is not None and server.stdout is not None
    try:
        assert server.stdout.readline() == b"ready\n"
        command.parent.mkdir()
        client = CLIENT.format(python=sys.executable, directory=str(directory))
        command.write_text(client, encoding="utf-8")
        command.chmod(0o755)
        yield command
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


def serve(directory: str) -> None:
    """Fork at each request; returns in the fork, which is to run the command."""
    for module in MODULES:
        importlib.import_module(module)
    threads = [*Path("/proc/self/task").glob("*")]
    assert len(threads) <= 1, "one of the modules starts threads, which a fork would be without"
    gc.collect()
    gc.freeze()  # no fork looks through, and thereby copies, what is there to stay
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(directory)
        listener.bind("socket")
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    return answer(connection)
    sys.exit()


def answer(connection: socket.socket) -> None:
    """Fork once more, to send the exit code; returns in that fork, made as the client is."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile(encoding="utf-8") as lines:
        request = json.loads(lines.readline())
    child = os.fork()
    if child:
        for descriptor in (0, 1, 2, *descriptors):
            os.close(descriptor)  # who reads them waits for their end
        connection.sendall(b"%d\n" % child)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(b"%d\n" % code)
        os._exit(0)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]


if __name__ == "__main__":
    traces = Path(sys.argv[2])
    serve(sys.argv[1])
    exports = sys.argv[1:2] in (["export"], ["run"])  # the others need not import what traces
    with traced_once(traces) if exports else contextlib.nullcontext():
        runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
