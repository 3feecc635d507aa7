#!/usr/bin/env python3
"""Asks the page cache about a file that is in it and one that is not: cachestat(2), RWF_NOWAIT, RWF_DONTCACHE."""
import ctypes
import os
import time

SIZE = 64 << 20
CACHESTAT = 451
libc = ctypes.CDLL(None, use_errno=True)
file = os.open("probe-cache", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
os.write(file, os.urandom(SIZE))
os.fsync(file)


def cachestat(at, size):
    span, answer = (ctypes.c_uint64 * 2)(at, size), (ctypes.c_uint64 * 5)()
    best = 1e9
    for _ in range(1000):
        start = time.perf_counter()
        failed = libc.syscall(CACHESTAT, file, span, answer, 0)
        best = min(best, time.perf_counter() - start)
    return "not here" if failed else f"{answer[0]} pages, {best * 1e6:.1f} us at best"


def tried(call):
    try:
        return f"{call()} bytes"
    except OSError as err:
        return err


def ask(when):
    print(f"{when}: cachestat of 1 KiB:", cachestat(1 << 20, 1024))
    print(f"{when}: cachestat of 64 MiB:", cachestat(0, SIZE))
    print(f"{when}: read, NOWAIT:", tried(lambda: os.preadv(file, [bytearray(4096)], 1 << 20, os.RWF_NOWAIT)))
    print(f"{when}: write, NOWAIT:", tried(lambda: os.pwritev(file, [bytes(4096)], 0, os.RWF_NOWAIT)))


ask("resident")
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
ask("dropped")
start = time.perf_counter()
os.pread(file, 4096, 32 << 20)
print(f"a read of 4 KiB that waits for the disk: {(time.perf_counter() - start) * 1e6:.0f} us")


def pages():
    span, answer = (ctypes.c_uint64 * 2)(0, SIZE), (ctypes.c_uint64 * 5)()
    return "not here" if libc.syscall(CACHESTAT, file, span, answer, 0) else answer[0]


os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
print("one byte, NOWAIT, of a cold file:", tried(lambda: os.preadv(file, [bytearray(1)], 8 << 20, os.RWF_NOWAIT)), end=", ")
time.sleep(0.2)
print(pages(), "pages then; again:", tried(lambda: os.preadv(file, [bytearray(1)], 8 << 20, os.RWF_NOWAIT)))
WINDOW = 512 << 10
RWF_DONTCACHE = 0x80
windows = range(0, SIZE - (16 << 20), WINDOW)
for advice in ("none", "RANDOM"):
    for name, order in (("all", windows), ("every second", windows[::2]), ("from the end", windows[::-1])):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        other = os.open("probe-cache", os.O_RDONLY)
        if advice == "RANDOM":
            os.posix_fadvise(other, 0, 0, os.POSIX_FADV_RANDOM)
        for at in order:
            answer = tried(lambda: os.preadv(other, [bytearray(WINDOW)], at, RWF_DONTCACHE))
        print(f"48 MiB by DONTCACHE, advice {advice}, {name}: {answer} each, {pages()} pages then")
        os.close(other)
os.unlink("probe-cache")
