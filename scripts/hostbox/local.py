"""The machine itself, with the same rules about time and exit status as the other hosts."""

import os
import signal
import subprocess

from . import session


def prepare(root, options):
    """Needs nothing."""


def run(root, options, command):
    """Runs `command` and returns its exit status."""
    try:
        # A process group of its own, so that nothing of it outlives the time.
        process = subprocess.Popen(
            command, start_new_session=True, preexec_fn=session.die_with_parent())
    except FileNotFoundError:
        session.say(f"{command[0]}: not found")
        return 127
    except OSError as error:
        session.say(f"{command[0]}: {error.strerror}")
        return 126
    try:
        status = process.wait(options.timeout)
    except subprocess.TimeoutExpired:
        session.say(f"the command took longer than {options.timeout} s")
        return session.TIMED_OUT
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    return status if status >= 0 else 128 - status
