#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
#
# Checks of loop-top's output, for test_top.sh.

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

USAGE = """usage: loop_top.py schema SCHEMA JSON
       loop_top.py get JSON DEVICE|total CGROUP|- KEY...
       loop_top.py screen CGROUP OTHER COMMAND...

schema  checks JSON against the schema
get     prints values of a cgroup, or of a device for CGROUP -; KEY is read/ios or the like
screen  runs the command, loop-top, on a terminal of 80 columns and checks the screen;
        the device has the two cgroups
"""

TYPES = {
    "object": dict, "array": list, "string": str, "integer": int,
    "number": (int, float), "null": type(None),
}


def check(schema, root, value, where="$"):
    """Fails unless the value matches the schema, as far as loop-top's schema goes."""
    known = {"title", "description", "type", "enum", "minimum", "maximum", "pattern", "items",
             "properties", "required", "additionalProperties", "$ref", "$defs"}
    assert set(schema) <= known, f"{where}: unknown keywords {set(schema) - known}"
    if "$ref" in schema:
        found = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        check(found, root, value, where)
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert any(isinstance(value, TYPES[t]) for t in types), f"{where}: {value!r} is no {types}"
    if "enum" in schema:
        assert value in schema["enum"], f"{where}: {value!r}"
    if "pattern" in schema:
        assert re.search(schema["pattern"], value), f"{where}: {value!r}"
    if isinstance(value, (int, float)):
        assert value >= schema.get("minimum", value), f"{where}: {value}"
        assert value <= schema.get("maximum", value), f"{where}: {value}"
    if isinstance(value, list):
        for n, item in enumerate(value):
            check(schema.get("items", {}), root, item, f"{where}[{n}]")
    if isinstance(value, dict):
        for name in schema.get("required", []):
            assert name in value, f"{where}: no {name}"
        properties = schema.get("properties", {})
        for name, member in value.items():
            if name in properties:
                check(properties[name], root, member, f"{where}.{name}")
            else:
                allowed = schema.get("additionalProperties", True)
                assert allowed, f"{where}: {name} is not in the schema"


def get(file, device, cgroup, keys):
    with open(file, encoding="utf-8") as f:
        view = json.load(f)
    found = view["total"]
    if device != "total":
        found = next(d for d in view["loopdevices"] if d["name"] == f"/dev/{device}")
        if cgroup != "-":
            found = next(c for c in found["cgroups"] if c["path"] == cgroup)
    values = []
    for key in keys:
        value = found
        for name in key.split("/"):
            value = value[name]
        values.append("null" if value is None else str(value))
    print(*values)


class Screen:
    """A terminal with the escape sequences of loop-top only."""

    def __init__(self, command, width=80, height=24):
        self.master, slave = pty.openpty()
        self.slave = slave
        self.modes = termios.tcgetattr(slave)
        self.set = set()
        self.ever = set()
        self.text = ""
        self.resize(width, height)
        self.child = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**os.environ, "TERM": "xterm"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def resize(self, width, height):
        self.width, self.height = width, height
        self.lines = [[" "] * width for _ in range(height)]
        self.row = self.column = 0
        # More lines or characters than fit, which may happen right after a change of the size.
        self.overrun = False
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def feed(self):
        while self.text:
            if match := re.match(r"\x1b\[(\??)([0-9;]*)([A-Za-z])", self.text):
                self.sequence(*match.groups())
                self.text = self.text[match.end():]
            elif self.text[0] == "\x1b":
                assert re.fullmatch(r"\x1b(\[\??[0-9;]*)?", self.text), repr(self.text)
                return
            else:
                self.put(self.text[0])
                self.text = self.text[1:]

    def sequence(self, private, number, letter):
        if private and letter in "hl":
            (self.set.add if letter == "h" else self.set.discard)(number)
            self.ever.add(number + letter)
        elif letter == "H" and not number:
            self.row = self.column = 0
            self.overrun = False
        elif letter == "K" and not number:
            self.lines[self.row][self.column:] = [" "] * (self.width - self.column)
        elif letter == "J" and not number:
            self.lines[self.row][self.column:] = [" "] * (self.width - self.column)
            for line in self.lines[self.row + 1:]:
                line[:] = [" "] * self.width
        else:
            assert letter == "m", f"unknown sequence {private}{number}{letter}"

    def put(self, c):
        if c == "\r":
            self.column = 0
        elif c == "\n":
            self.overrun |= self.row + 1 == self.height
            self.row = min(self.row + 1, self.height - 1)
        else:
            assert c.isprintable(), f"control character {c!r}"
            self.overrun |= self.column == self.width
            self.lines[self.row][min(self.column, self.width - 1)] = c
            self.column += 1

    def shown(self):
        return "\n".join("".join(line).rstrip() for line in self.lines).rstrip()

    def read(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return
        # A read can split a character of several bytes: loop-top prints only the ellipsis.
        data = os.read(self.master, 65536)
        while data[-3:].rfind(b"\xe2") >= 0 and len(data) - data.rfind(b"\xe2") < 3:
            data += os.read(self.master, 1)
        self.text += data.decode()
        self.feed()

    def until(self, what, *conditions):
        """Waits until the screen has all of the texts, and none of those that start with !"""
        end = time.monotonic() + 20 * int(os.environ.get("SLOW", "1"))
        while True:
            shown = self.shown()
            met = [(c[1:] not in shown) if c[0] == "!" else (c in shown) for c in conditions]
            if all(met) and not self.overrun:
                return
            assert time.monotonic() < end, f"{what}: {conditions} not on the screen:\n{shown}"
            self.read(0.1)

    def press(self, keys):
        os.write(self.master, keys.encode())

    def ended(self, status):
        end = time.monotonic() + 20
        while self.child.poll() is None:
            assert time.monotonic() < end, "loop-top did not end"
            self.read(0.1)
        self.read(0.1)
        assert self.child.returncode == status, f"exit status {self.child.returncode}"
        assert not self.set & {"1049"} and {"25", "7"} <= self.set, f"modes left: {self.set}"
        assert termios.tcgetattr(self.slave) == self.modes, "the terminal's modes are not restored"


def screen(cgroup, other, command):
    s = Screen(command)
    s.until("start", "loop-top  loop_rs", "DEVICE/CGROUP", "all devices", cgroup, other, "by iops")
    assert {"1049h", "25l", "7l"} <= s.ever, s.ever
    print(s.shown())
    s.press("t")
    s.until("devices only", "loop0", "!" + cgroup)
    s.press("ts")
    s.until("next column", "by bytes", cgroup)
    s.press("Sr")
    s.until("reversed", "by iops, reversed")
    s.press("rg" + cgroup + "x\x7f\r")
    s.until("filter", "only cgroups with " + cgroup, "!" + other + " ")
    s.press("g" + "\x7f" * len(cgroup) + "\r")
    s.until("no filter", other)
    s.press("a")
    s.until("active", "only active ones")
    s.press("af")
    s.until("one list", "loop0 " + cgroup)
    s.press("fd0.5x\r")
    s.until("wrong delay", "0.5x is no delay")
    s.press("d0.5\r")
    s.until("delay", "every 0.5 s")
    s.press("p")
    s.until("pause", "paused")
    s.press("h")
    s.until("help", "Keys: q quit", "HELD")
    s.press("h ")
    s.until("back", "every 0.5 s", "all devices")
    s.resize(40, 6)
    s.until("small", "loop-top", "all devices")
    s.press("\x1b[F")
    s.until("scrolled", "all devices", "!loop0 ")
    s.press("\x1b[H")
    s.until("scrolled back", "loop0")
    s.resize(150, 24)
    s.until("wide", "FILE", "WRK/S")
    s.press("\x1a")
    while os.waitpid(s.child.pid, os.WNOHANG | os.WUNTRACED) == (0, 0):
        s.read(0.1)
    s.read(1)
    assert "1049" not in s.set, "stopped on the alternate screen"
    s.child.send_signal(signal.SIGCONT)
    while "1049" not in s.set:
        assert s.child.poll() is None
        s.read(0.1)
    s.until("resumed", "all devices")
    s.press("q")
    s.ended(0)
    for number in signal.SIGTERM, signal.SIGHUP, signal.SIGINT:
        s = Screen(command)
        s.until("start", "all devices")
        s.child.send_signal(number)
        s.ended(0)


def main():
    args = sys.argv[1:]
    if len(args) == 3 and args[0] == "schema":
        with open(args[1], encoding="utf-8") as f, open(args[2], encoding="utf-8") as g:
            schema = json.load(f)
            check(schema, schema, json.load(g))
    elif len(args) > 4 and args[0] == "get":
        get(args[1], args[2], args[3], args[4:])
    elif len(args) > 3 and args[0] == "screen":
        screen(args[1], args[2], args[3:])
    else:
        sys.exit(USAGE)


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, StopIteration) as error:
        sys.exit(f"loop_top.py: {error or 'not in the JSON'}")
