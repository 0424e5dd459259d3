"""One run of a command on an emulated host: its streams, its time, its end.

A host has five channels, each a pair of sockets or a pipe: its console, COMMAND's output, errors
and input, and `control`, which carries text. The host says on control, a line each:

    ready         it is up
    exit N        COMMAND ended with status N, and all it wrote has been handed over
    failed WHY    the host can't run COMMAND
"""

import collections
import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from socket import SHUT_WR

TIMED_OUT = 124


class HostFailure(Exception):
    """The host could not be started, or died."""


def say(text):
    """Something of our own for the user."""
    print(f"scripts/{os.path.basename(sys.argv[0])}: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def signals_end_us():
    """Signals that ask for the end raise SystemExit, so that everything is cleaned up."""
    def end(number, _):
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    for number in numbers:
        # What a caller such as nohup ignores stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
    yield


def die_with_parent(number=signal.SIGKILL):
    """For a child between fork and exec: the kernel sends it `number` when this program ends."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()
    pr_set_pdeathsig = 1

    def arrange():
        prctl(pr_set_pdeathsig, number)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


class Session:
    """Passes a host's channels on until it ends."""

    def __init__(self, name, start_limit, timeout, shows_console, usual):
        """`usual` is how long a start takes, in words."""
        self.name = name
        self.usual = usual
        self.start_limit = start_limit
        self.timeout = timeout
        self.shows_console = shows_console
        self.console = collections.deque(maxlen=4096)
        self.status = None
        self.is_ready = False
        self.failure = None
        self._control = b""

    def run(
            self, process, console, output, errors, control, on_ready=lambda: None, others=None):
        """Until `process`, the emulator, has ended; returns COMMAND's status.

        The channels are descriptors or sockets that read to their end when the host is gone.
        `others` are more of them, each with what takes its data.
        """
        handlers = {
            **(others or {}),
            console: self._take_console,
            output: lambda data: write_all(1, data),
            errors: lambda data: write_all(2, data),
            control: self._take_control,
        }
        selector = selectors.DefaultSelector()
        for channel, handler in handlers.items():
            selector.register(channel, selectors.EVENT_READ, handler)
        # To a person alone: a program has COMMAND's errors there and nothing else.
        if os.isatty(2):
            say(f"starting the {self.name} host, a whole Linux in software: {self.usual}")
        deadline = time.monotonic() + self.start_limit
        was_ready = False
        try:
            while selector.get_map():
                for key, _ in selector.select(min(3600, max(0, deadline - time.monotonic()))):
                    try:
                        data = os.read(key.fd, 1 << 16)
                    except OSError:
                        # A socket whose other side left something unread, or a closed terminal.
                        data = b""
                    if data:
                        key.data(data)
                    else:
                        selector.unregister(key.fileobj)
                if self.status is not None or self.failure:
                    # Only its shutting down is left, and what is still in the channels.
                    deadline = min(deadline, time.monotonic() + 10)
                elif self.is_ready and not was_ready:
                    was_ready = True
                    deadline = time.monotonic() + (self.timeout or 1e9)
                    on_ready()
                if time.monotonic() >= deadline:
                    break
        except BrokenPipeError:
            # Whoever read our output has gone; so would COMMAND have.
            return 128 + signal.SIGPIPE
        finally:
            kill(process)
        if self.failure:
            raise HostFailure(f"the {self.name} host can't run the command: {self.failure}")
        if self.status is not None:
            return self.status
        if not was_ready:
            raise HostFailure(self._account(
                f"the {self.name} host did not come up"
                + (f" in {self.start_limit} s" if time.monotonic() >= deadline else "")))
        if time.monotonic() >= deadline:
            say(f"the command took longer than {self.timeout} s on {self.name}; the host is gone")
            return TIMED_OUT
        raise HostFailure(self._account(f"the {self.name} host died"))

    def _take_console(self, data):
        self.console.extend(data)
        if self.shows_console:
            write_all(2, data)

    def _take_control(self, data):
        self._control += data
        while b"\n" in self._control:
            line, self._control = self._control.split(b"\n", 1)
            word, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            if word == "ready":
                self.is_ready = True
            elif word == "exit":
                self.status = int(rest)
            elif word == "failed":
                self.failure = rest

    def _account(self, what):
        text = bytes(self.console).decode("utf-8", "replace").strip()
        if not text or self.shows_console:
            return what
        # QEMU always says what of the CPU model it can't do.
        lines = [
            line.rstrip() for line in text.splitlines()
            if "TCG doesn't support requested feature" not in line]
        return what + ". The last lines of its console:\n  " + "\n  ".join(lines[-20:])


def write_all(fd, data):
    """All of `data`, whatever a single write takes."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view):]
        except BlockingIOError:
            time.sleep(0.01)


def feed(source, socket):
    """Passes what can be read from file descriptor `source` to `socket`, then ends that.

    In a thread of its own, since either side may keep it waiting.
    """
    def pump():
        try:
            while data := os.read(source, 1 << 16):
                socket.sendall(data)
            # Not close(): QEMU drops what it hasn't read yet when the other side is gone.
            socket.shutdown(SHUT_WR)
        except OSError:
            pass

    threading.Thread(target=pump, daemon=True).start()


def kill(process):
    """Ends `process` for certain."""
    if process.poll() is None:
        process.kill()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        pass
