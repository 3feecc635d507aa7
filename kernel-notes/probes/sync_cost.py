#!/usr/bin/env python3
"""Times write + fdatasync at the end of a growing, an allocated but unwritten, and a zero-filled file.

    ./sync_cost.py BYTES COUNT        e.g. ./sync_cost.py 65536 400; "chrt -f 1" in front where it is allowed
"""
import os
import sys
import time

size, count = int(sys.argv[1]), int(sys.argv[2])
kinds = ["growing", "unwritten", "zeros"]


def make(kind):
    file = os.open(f"probe-{kind}", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    if kind == "unwritten":
        os.posix_fallocate(file, 0, size * count)
    if kind == "zeros":
        for at in range(0, size * count, 1 << 20):
            os.pwrite(file, bytes(1 << 20), at)
    os.fsync(file)
    return file


files = {kind: make(kind) for kind in kinds}
took = {kind: [] for kind in kinds}
data = os.urandom(size)
for i in range(count):
    for kind in kinds:  # in turn, so that what else goes on hits all alike
        start = time.perf_counter()
        os.pwrite(files[kind], data, i * size)
        os.fdatasync(files[kind])
        took[kind].append((time.perf_counter() - start) * 1e6)
for kind in kinds:
    t = sorted(took[kind])
    p50, p90, p99 = (t[count * share // 100] for share in (50, 90, 99))
    print(f"{size:8} B  {kind:10} p50 {p50:6.0f}  p90 {p90:6.0f}  p99 {p99:6.0f} us")
    os.unlink(f"probe-{kind}")
