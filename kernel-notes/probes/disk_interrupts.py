#!/usr/bin/env python3
"""Shows which CPU takes the disk's interrupts, and what a synced write costs a thread on each CPU."""
import os
import statistics
import time

SIZE = 16 << 20
PAGE = 4096
ROUNDS = 8
WRITES = 100


def interrupts():
    """Of every interrupt with a device behind it: its name, and how often each CPU took it."""
    counts = {}
    with open("/proc/interrupts") as lines:
        cpu_count = len(next(lines).split())
        for line in lines:
            number, *rest = line.split()
            if number.rstrip(":").isdigit():
                counts[rest[-1]] = [int(text) for text in rest[:cpu_count]]
    return counts


cpus = sorted(os.sched_getaffinity(0))
file = os.open("probe-interrupts", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
for at in range(0, SIZE, 1 << 20):
    os.pwrite(file, bytes(1 << 20), at)
os.fsync(file)
times = {cpu: [] for cpu in cpus}
before = interrupts()
for turn in range(ROUNDS):
    for cpu in cpus:
        os.sched_setaffinity(0, {cpu})
        for write in range(WRITES):
            start = time.perf_counter_ns()
            os.pwrite(file, b"w" * PAGE, (turn * WRITES + write) * PAGE % SIZE)
            os.fdatasync(file)
            times[cpu].append((time.perf_counter_ns() - start) / 1000)
after = interrupts()
os.unlink("probe-interrupts")
for name, counts in after.items():
    taken = [now - then for now, then in zip(counts, before.get(name, counts))]
    if sum(taken) > ROUNDS * WRITES:
        print(f"{name}: " + ", ".join(f"{count} on CPU {cpu}" for cpu, count in enumerate(taken)))
for cpu in cpus:
    p50, p99 = statistics.median(times[cpu]), sorted(times[cpu])[len(times[cpu]) * 99 // 100]
    print(f"4 KiB and fdatasync from CPU {cpu}: p50 {p50:6.1f} us, p99 {p99:7.1f} us")
