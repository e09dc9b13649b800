"""Run Python programs in forks of a server that has already imported libraries.

``python warm_python.py serve SOCKET MODULE ...`` starts the server, which has one thread and exits
when its stdin is closed. ``python -I -S warm_python.py SOCKET`` accepts ``-m MODULE``, ``-c CODE``
or a script, and arguments, like python; mpiexec and torchrun start this client instead of python.
The fork gets the client's environment and files, including those of MPI. If one of the two ends,
the other ends with the same status or signal.
"""

import os
import signal
import socket
import sys


def start(path: str, argv: list[str]) -> None:
    """Send the program to the server, and exit with the program's status."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    files = [0, 1, 2, *filter(None, [int(os.environ.get("PMI_FD", 0))])]
    text = repr((argv, os.getcwd(), os.environ | {"LAUNCHER": str(os.getppid())})).encode()
    socket.send_fds(server, [len(text).to_bytes(8, "big")], files)
    server.sendall(text)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # mpiexec sends this after another rank ends.
    sent = {number: bytes([number]) for number in (signal.SIGTERM, signal.SIGINT)}
    sent[signal.SIGUSR2] = bytes([signal.SIGKILL])  # The client waits for the end of the program.
    for number in sent:
        signal.signal(number, lambda number, frame: server.send(sent[number]))
    status = int.from_bytes(server.recv(2), "big", signed=True)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def serve(path: str) -> list[str]:
    """Fork for each program, and return the program's arguments in the fork."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # No zombies: nothing waits for the watchers.
    while sys.stdin not in select.select([sys.stdin, listener], [], [])[0]:
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return watch(client)
        client.close()
    os._exit(0)


def watch(client: socket.socket) -> list[str]:
    """Fork again. The new process runs the program; this one relays signals and the exit status."""
    size, files, *_ = socket.recv_fds(client, 8, 8)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += client.recv(1 << 16)
    argv, folder, environment = ast.literal_eval(text.decode())
    ended, alive = map(move_up, os.pipe())
    pid = os.fork()
    if pid == 0:
        client.close()
        for file, place in zip(files, [0, 1, 2, int(environment.get("PMI_FD", 0))], strict=False):
            os.dup2(file, place)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        return argv
    for file in (alive, *files):
        os.close(file)
    while ended not in (ready := select.select([ended, client], [], [])[0]):
        number = client.recv(1) if client in ready else b""
        os.kill(pid, number[0] if number else signal.SIGKILL)
        if not number:
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):  # The client was ended by another rank.
        client.send(status.to_bytes(2, "big", signed=True))
    os._exit(0)


def move_up(file: int) -> int:
    """Move a file descriptor to a number that programs do not use."""
    moved = fcntl.fcntl(file, fcntl.F_DUPFD, 500)
    os.close(file)
    return moved


def run(argv: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kind, *rest = argv
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = type(sys)("__main__")
        exec(rest[0], vars(sys.modules["__main__"]))
    else:
        sys.argv = argv
        runpy.run_path(kind, run_name="__main__")


def end(status: int) -> None:
    """Exit without releasing all modules, which would take seconds."""
    threading._shutdown()
    atexit._run_exitfuncs()
    if (mpi := sys.modules.get("mpi4py.MPI")) and not mpi.Is_finalized():
        mpi.Finalize()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1] != "serve":
        start(sys.argv[1], sys.argv[2:])
    # Only the server needs these modules. Clients start once per rank and must be fast.
    import ast
    import atexit
    import contextlib
    import fcntl
    import importlib
    import runpy
    import select
    import threading

    for name in sys.argv[3:]:
        importlib.import_module(name)
    status = 0
    try:
        run(serve(sys.argv[2]))
    except SystemExit as ended:
        status = ended.code or 0
        if status and ("mpi4py.MPI" in sys.modules or not isinstance(status, int)):
            raise
    end(status)
