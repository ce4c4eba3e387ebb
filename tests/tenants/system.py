# SPDX-License-Identifier: GPL-2.0
"""Commands, files and time limits."""

import subprocess
import time

KIB = 1 << 10
MIB = 1 << 20


class Failed(Exception):
    """A scenario shows nothing, or could not be run."""


def run(*command, **kwargs):
    command = [str(word) for word in command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **kwargs)
    if done.returncode:
        last = done.stdout.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise Failed(f"{' '.join(command)}: {last[0]}")
    return done.stdout.strip()


def write(path, text):
    try:
        path.write_text(f"{text}\n", encoding="ascii")
    except OSError as e:
        raise Failed(f"{text} > {path}: {e.strerror}") from e


def wait_for(seconds, what, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what} took more than {seconds} s")
        time.sleep(0.05)


def say(text):
    print(text, flush=True)


def retry(function, *args):
    """Retries: something can stay busy for a moment after the command that released it."""
    for left in range(50, -1, -1):
        try:
            return function(*args)
        except Failed:
            if not left:
                raise
            time.sleep(0.1)
