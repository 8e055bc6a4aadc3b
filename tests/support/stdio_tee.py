"""Runs a command between this process's stdin and stdout, and writes each line that passes to a file.

    python stdio_tee.py LOGFILE -- command argument ...

Bytes are passed on as they come. Each line of the file is ``{"direction": ..., "line": ...}``; several of
these processes may write to the same file. The end of stdin is passed on; a command that stays on after it is
ended. The exit code is the command's (128 + the number of the signal that killed it). Needs only the standard
library.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

CHUNK = 65536
# How long the command may take to end after its stdin has ended, and after it was asked to.
GRACE = 15.0
KILL_AFTER = 5.0


class LineLog:
    """Appends whole lines; each reaches the file before it reaches its reader."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)

    def write(self, direction: str, line: bytes) -> None:
        entry = {"direction": direction, "line": line.decode("utf-8", "surrogateescape")}
        os.write(self._fd, json.dumps(entry).encode() + b"\n")


def pump(source: int, target: int, direction: str, log: LineLog) -> None:
    """Copy until the source ends or the target is gone; then close both: either end hears of the other."""
    rest = b""
    try:
        while chunk := os.read(source, CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                log.write(direction, line)
            write_all(target, chunk)
    except OSError:
        # The reader has gone: nothing to deliver to, and nothing to say about it.
        pass
    finally:
        if rest:
            log.write(direction, rest)
        for fd in (source, target):
            with contextlib.suppress(OSError):
                os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def end(child: subprocess.Popen[bytes]) -> None:
    """See to it that the command ends after its stdin has."""
    for patience, ask in ((GRACE, child.terminate), (KILL_AFTER, child.kill)):
        try:
            child.wait(patience)
            return
        except subprocess.TimeoutExpired:
            ask()


def wait_for(child: subprocess.Popen[bytes]) -> int:
    """The exit code; in steps, for the handler of a signal that comes just before a wait runs only after it."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(1.0)


def main(arguments: list[str]) -> int:
    if len(arguments) < 3 or arguments[1] != "--":
        print(__doc__, file=sys.stderr)
        return 2
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(0, os.O_BINARY)
        msvcrt.setmode(1, os.O_BINARY)
    log = LineLog(arguments[0])
    child = subprocess.Popen(arguments[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert child.stdin is not None
    assert child.stdout is not None
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: child.terminate())

    # The pumps close their descriptors themselves, so they get ones that no file object closes a second time.
    child_stdin, child_stdout = os.dup(child.stdin.fileno()), os.dup(child.stdout.fileno())
    child.stdin.close()
    child.stdout.close()

    def feed() -> None:
        pump(0, child_stdin, "client->server", log)
        end(child)

    threading.Thread(target=feed, daemon=True).start()
    output = threading.Thread(target=pump, args=(child_stdout, 1, "server->client", log), daemon=True)
    output.start()
    code = wait_for(child)
    # What the command wrote last may still be on its way; a grandchild may hold the pipe open for ever.
    output.join(2.0)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    # The thread that reads stdin cannot be ended, and need not be.
    os._exit(code)
