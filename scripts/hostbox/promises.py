"""What scripts/host promises its users, tried on a host: for scripts/test-hosts."""

import os
import select
import signal
import subprocess

from . import session

# Seconds, against hanging alone; making a host ready for the first time takes minutes.
LIMIT = 600


def check(root, host, options):
    """Results by test."""
    command = [os.path.join(root, "scripts/host"), "--on", host, *options]
    found = {}
    for promise in (streams, status, timeout, killed):
        name = f"scripts/host: {promise.__doc__.rstrip('.')}"
        if host == "vt-x" and promise is not killed:
            found[name] = {"result": "skipped", "why": "a start of vt-x for each, for the same code"}
            continue
        # Twice, since the emulators have bugs of their own.
        why = tried(promise, command) and tried(promise, command)
        found[name] = {"result": "failed", "why": why} if why else {"result": "passed"}
    return found


def tried(promise, command):
    """What is wrong, or None."""
    try:
        return promise(command)
    except subprocess.TimeoutExpired as error:
        return str(error)


def run(command, text=b""):
    """A command's status, its output and what it said."""
    ended = subprocess.run(
        command, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT,
        preexec_fn=session.die_with_parent(signal.SIGTERM))
    return ended.returncode, ended.stdout, ended.stderr


def streams(command):
    """the streams are the command's, byte by byte."""
    text = bytes(range(256)) * 300
    found = run([*command, "--", "sh", "-c", "cat; echo other >&2"], text)
    return None if found == (0, text, b"other\n") else f"ended with {found}"


def status(command):
    """the status is the command's."""
    found, _, _ = run([*command, "--", "sh", "-c", "exit 7"])
    return None if found == 7 else f"ended with {found} instead of 7"


def timeout(command):
    """a command that outruns --timeout ends with 124, and that is said."""
    found, _, said = run([*command, "--timeout", "1", "--", "sleep", "1000"])
    return None if found == 124 and b"longer than 1 s" in said else f"ended with {found}: {said}"


def killed(command):
    """ended in the middle by a signal, it leaves no process and no mount."""
    # What a command on this machine has started can only be ended by a program that still runs.
    number = signal.SIGTERM if "local" in command else signal.SIGKILL
    mounts = read("/proc/self/mounts")
    process = subprocess.Popen(
        [*command, "--", "sh", "-c", "echo up; sleep 1000"], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if process.stdout.readline() != b"up\n":
        process.kill()
        return "it did not come up"
    below = descendants(process.pid)
    process.send_signal(number)
    process.wait()
    left = [process for process in below if not has_ended(process)]
    if left or not below:
        return f"processes are left: {left}" if left else "it had no process to end"
    return None if read("/proc/self/mounts") == mounts else "a mount is left"


def descendants(pid):
    """A process's children, theirs, and so on, as pairs of number and pidfd."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in map(int, read(f"/proc/{pid}/task/{task}/children").split()):
                found += [(child, os.pidfd_open(child)), *descendants(child)]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def has_ended(process):
    """Waits for a process to end, but not for ever."""
    _, descriptor = process
    try:
        return bool(select.select([descriptor], [], [], 60)[0])
    finally:
        os.close(descriptor)


def read(path):
    """A file's text."""
    with open(path, encoding="utf-8") as file:
        return file.read()
