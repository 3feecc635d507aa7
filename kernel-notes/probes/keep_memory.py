#!/usr/bin/env python3
"""Keeps a virtual machine's free memory behind it: GIB SECONDS.

A host that takes back what its guest has free makes the guest's next write fault its pages in again. It takes
large free blocks only. So all of this memory is used once, and then one small page of each 2 MiB is kept: what is
free lies in between, in pieces.
"""
import ctypes
import mmap
import sys
import time

SMALL = 4096
LARGE = 2 << 20

size = int(sys.argv[1]) << 30
seconds = float(sys.argv[2])
memory = mmap.mmap(-1, size + LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
# A large page would be given back as a whole, or not at all.
memory.madvise(mmap.MADV_NOHUGEPAGE)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
start = -address % LARGE
for at in range(start, start + size, LARGE):
    memory[at : at + LARGE] = b"\1" * LARGE
for at in range(start, start + size, LARGE):
    memory.madvise(mmap.MADV_DONTNEED, at + SMALL, LARGE - SMALL)
print("kept", flush=True)
time.sleep(seconds)
