#!/usr/bin/env python3
"""Does cachestat count all pages of a file that is all in memory? Asks about ranges of 256 KiB in turn, and after a
short count once more at once.

    ./cachestat.py [SECONDS]        writes 400 MiB into ./probe-cachestat and removes it
"""
import ctypes
import os
import sys
import time

SYS_CACHESTAT = 451
FILE_SIZE, RANGE, PAGE = 400 << 20, 256 << 10, 4096
# No multiple of a page, as records lie.
STEP = 262_387
NAME = "probe-cachestat"

libc = ctypes.CDLL(None, use_errno=True)


def reclaimed():
    with open("/proc/vmstat") as file:
        counts = dict(line.split() for line in file)
    return int(counts["pgsteal_kswapd"]) + int(counts["pgsteal_direct"])


def main():
    seconds = float(sys.argv[1]) if 1 < len(sys.argv) else 10.0
    file = os.open(NAME, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        piece = os.urandom(1 << 20)
        for _ in range(FILE_SIZE >> 20):
            os.write(file, piece)
        wanted, counts = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 5)()

        def count(at):
            wanted[0], wanted[1] = at, RANGE
            if libc.syscall(SYS_CACHESTAT, file, wanted, counts, 0) != 0:
                sys.exit(f"cachestat: {os.strerror(ctypes.get_errno())}")
            return counts[0]

        before, asked, short, then_all = reclaimed(), 0, 0, 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            at = asked * STEP % (FILE_SIZE - RANGE)
            asked += 1
            pages = (at + RANGE - 1) // PAGE - at // PAGE + 1
            if count(at) < pages:
                short += 1
                then_all += count(at) == pages
        gone = reclaimed() - before
        print(f"{asked} questions, {short} short counts, {then_all} of them whole when asked again; {gone} pages reclaimed")
    finally:
        os.close(file)
        os.unlink(NAME)


if __name__ == "__main__":
    main()
