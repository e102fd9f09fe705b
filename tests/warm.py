"""Commands as processes of their own that do not each pay for half a second of imports.

A server imports the planner once and forks itself for every command it is asked for: a command is
still a process with its own directory, environment, streams, signals and exit code, and nothing
that one does is seen by the next. :func:`command.planner` asks it, and so does, from a shell, the
``planner`` that :func:`shim` writes. ``test_warm.py`` holds that a command started so does what it
does when started from nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import marshal
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

#: A ``planner`` for shells: it hands itself to the server, and ends as the command does.
SHIM = """\
#!{python} -IS
import _socket, array, marshal, os, sys
server = _socket.socket(_socket.AF_UNIX)
server.connect({address!r})
asked = marshal.dumps((sys.argv, os.getcwd(), dict(os.environ)))
streams = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))
server.sendmsg([len(asked).to_bytes(8, "big"), asked], [streams])
code = int(server.recv(64) or b"70")
if code < 0:
    import signal
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def run(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], streams: tuple[int, int, int],
    timeout_s: float,
) -> int:
    """Run a command on its open stdin, stdout and stderr; return its exit code, or -signal."""
    asked = marshal.dumps((list(argv), str(cwd), dict(env)))
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(timeout_s)
        server.connect(address())
        socket.send_fds(server, [len(asked).to_bytes(8, "big"), asked], list(streams))
        try:
            return int(server.recv(64))
        except TimeoutError:
            raise subprocess.TimeoutExpired(list(argv), timeout_s) from None


@cache
def shim() -> Path:
    """Return a directory for ``PATH`` that holds a ``planner``."""
    file = Path(address()).with_name("planner")
    file.write_text(SHIM.format(python=sys.executable, address=address()), encoding="utf-8")
    file.chmod(0o755)
    return file.parent


@cache
def address() -> str:
    """Start the server, once a process; it ends with this process."""
    folder = tempfile.mkdtemp(prefix="warm-")
    path = f"{folder}/socket"
    server = subprocess.Popen(
        [sys.executable, __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}, start_new_session=True,
    )  # fmt: skip

    @atexit.register
    def end() -> None:
        server.communicate()  # closes its stdin
        shutil.rmtree(folder)

    assert server.stdout
    assert server.stdout.read(1) == b"!", "the server of commands did not start"
    return path


# The server -------------------------------------------------------------------------------------


def _load() -> None:
    """Import what commands may import, and read the shipped catalogue."""
    import importlib
    import pkgutil

    import planner
    from planner.catalog.store import KINDS, load_all
    from planner.errors import CatalogError

    for name in ("highspy", "jinja2", "scipy.optimize"):  # in the order the planner insists on
        importlib.import_module(name)
    for module in pkgutil.walk_packages(planner.__path__, "planner."):
        importlib.import_module(module.name)
    for kind in KINDS:
        with contextlib.suppress(CatalogError):  # a command that reads it says so itself
            load_all(kind)
    gc.collect()
    gc.freeze()


def _serve(path: str) -> list[str]:
    """Fork a process for every command asked for; return in that process, with its argv."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    told, tells = socket.socketpair()
    tells.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tells.fileno())
    ready = selectors.DefaultSelector()
    for file in (sys.stdin, listener, told):
        ready.register(file, selectors.EVENT_READ)
    clients: dict[int, socket.socket] = {}
    os.write(1, b"!")
    while True:
        for key, _ in ready.select():
            if key.fileobj is sys.stdin:  # who started this server is gone
                os.killpg(0, signal.SIGKILL)
            elif key.fileobj is listener:
                client = listener.accept()[0]
                asked, streams = _asked(client)
                child = os.fork()
                if not child:
                    signal.set_wakeup_fd(-1)
                    for open_ in (*clients.values(), client, listener, told, tells, ready):
                        open_.close()
                    return _become(*asked, streams)
                for stream in streams:
                    os.close(stream)
                clients[child] = client
                ready.register(client, selectors.EVENT_READ, child)
            elif key.fileobj is told:
                told.recv(4096)
                _tell_ended(clients, ready)
            else:  # whoever asked is gone
                ready.unregister(key.fileobj)
                os.kill(key.data, signal.SIGKILL)


def _asked(client: socket.socket) -> tuple[Any, list[int]]:
    """Read what a client asks for: argv, directory and environment; and its three streams."""
    head, streams, _, _ = socket.recv_fds(client, 8, 3)
    length, body = int.from_bytes(head, "big"), b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return marshal.loads(body), streams


def _tell_ended(clients: dict[int, socket.socket], ready: selectors.BaseSelector) -> None:
    """Tell who asked for the commands that have ended how they did."""
    while clients:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        client = clients.pop(child)
        if client in ready.get_map():
            ready.unregister(client)
            client.sendall(b"%d" % os.waitstatus_to_exitcode(status))
        client.close()


def _become(argv: list[str], cwd: str, env: Mapping[str, str], streams: list[int]) -> list[str]:
    """Turn a fork of the server into a process as the system would have started it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape")
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape")
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace")
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    return argv


def _end(main: Callable[[], None]) -> None:
    """Run a command and end as the interpreter does, but leave the memory to the system."""
    try:
        main()
        code = 0
    except SystemExit as stop:
        if not isinstance(stop.code, int | None):
            raise
        code = stop.code or 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _load()
    sys.argv = _serve(sys.argv[1])
    from planner.__main__ import main

    _end(main)
