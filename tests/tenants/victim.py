# SPDX-License-Identifier: GPL-2.0
"""The victim: fio on the loop device, beside its neighbours."""

import json
import subprocess
import time

from tenants.cgroups import CGROOT, PARENT, in_cgroup
from tenants.disk import VICTIM_SIZE
from tenants.neighbours import check_held
from tenants.system import Failed

# Seconds after the end of the victim's time before the neighbours are released.
PATIENCE = 5


def victim(bench, scenario, dev, neighbours, seconds):
    """Runs the victim. Returns its IOPS, the 99th percentile of its latency in ms (None if no I/O
    completed), the IOPS of its neighbours, and whether it ended only after these were released."""
    out = bench.tmp / "fio.json"
    out.unlink(missing_ok=True)
    command = ["fio", "--name=victim", f"--filename={dev}", "--bs=4k", f"--size={VICTIM_SIZE}",
               "--direct=1", "--time_based", f"--runtime={seconds * 1000:.0f}ms",
               "--norandommap", "--invalidate=0", "--allow_mounted_write=1", "--output-format=json",
               # Total latency: waiting for a tag happens within the submission.
               "--clat_percentiles=0", "--lat_percentiles=1", f"--output={out}"]
    command += {
        "read": ["--rw=randread", "--ioengine=libaio", "--iodepth=4"],
        "write": ["--rw=randwrite", "--ioengine=libaio", "--iodepth=4"],
        "fsync": ["--rw=randwrite", "--ioengine=psync", "--fdatasync=1"],
    }[scenario.victim]
    cgroup = {"child": PARENT / "victim", "root": CGROOT,
              "nested": PARENT / "victims/a/b"}[scenario.where]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, preexec_fn=in_cgroup(cgroup))
    stuck = False
    theirs = 0.0
    start = time.monotonic()
    before = neighbours.done() if neighbours else None
    # fio takes a moment to start and to report.
    end = start + seconds + PATIENCE
    try:
        while process.poll() is None:
            time.sleep(0.2)
            now = time.monotonic()
            if neighbours and not stuck:
                if process.poll() is None:
                    neighbours.sample()
                if now > end:
                    stuck = True
                    theirs = check_held(neighbours, before, now - start)
                    neighbours.lift_limits()
                    neighbours.terminate()
            if now > end + 60:
                raise Failed("the victim did not end")
        if neighbours and not stuck:
            theirs = check_held(neighbours, before, time.monotonic() - start)
        said = process.stdout.read().strip()
        if process.returncode:
            raise Failed(f"fio: {said.splitlines()[-1] if said else process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    text = out.read_text(encoding="utf-8")
    job = json.loads(text[text.index("{"):])["jobs"][0]
    io = job["read" if scenario.victim == "read" else "write"]
    latency = job["sync"]["lat_ns"] if scenario.victim == "fsync" else io["lat_ns"]
    p99 = latency.get("percentile", {}).get("99.000000")
    return {"iops": io["iops"], "p99_ms": None if p99 is None else p99 / 1e6, "theirs": theirs,
            "stuck": stuck}
