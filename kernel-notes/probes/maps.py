#!/usr/bin/env python3
"""Shows what a write through a map costs the disk, and what reading a map behind a file's end does."""
import mmap
import os
import socket
import statistics

SIZE = 64 << 20
PAGE = 4096
TURNS = 5
STORES = 25


def device_bytes(path):
    """Bytes that the device under a file was sent so far, by all programs."""
    number = os.stat(path).st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    with open(f"/sys/dev/block/{name}/stat") as stat:
        return int(stat.read().split()[6]) * 512


def dirtied_bytes():
    """Bytes of the page cache that this process made dirty: whole folios, and no other program's."""
    with open("/proc/self/io") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def write_sizes(piece, sync):
    """The ways take turns; each store goes to a page far from all others."""
    file = os.open("probe-map", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for at in range(0, SIZE, piece):
        os.pwrite(file, bytes(piece), at)
    os.fsync(file)
    view = mmap.mmap(file, SIZE)
    sent = {"map": [], "pwrite": []}
    dirtied = {"map": [], "pwrite": []}
    for turn in range(TURNS):
        for how in sent:
            before = device_bytes("probe-map"), dirtied_bytes()
            for step in range(STORES):
                # One store in each 2 MiB, which is the largest folio there is.
                at = (step * (2 << 20) + turn * 64 * PAGE) % SIZE
                if how == "map":
                    view[at : at + PAGE] = b"m" * PAGE
                    if sync == "msync":
                        view.flush(at, PAGE)
                else:
                    os.pwrite(file, b"w" * PAGE, at)
                if sync == "fdatasync" or how == "pwrite":
                    os.fdatasync(file)
            after = device_bytes("probe-map"), dirtied_bytes()
            sent[how].append((after[0] - before[0]) / STORES / 1024)
            dirtied[how].append((after[1] - before[1]) / STORES / 1024)
    for how in sent:
        way = sync if how == "map" else "fdatasync"
        print(
            f"zeros in pieces of {piece >> 10:4} KiB, 4 KiB by {how:6} and {way:9}: "
            f"{statistics.median(sent[how]):7.1f} KiB to the device ({min(sent[how]):.1f}-{max(sent[how]):.1f}), "
            f"{statistics.median(dirtied[how]):7.1f} KiB made dirty"
        )
    view.close()
    os.close(file)


for piece in (4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20):
    write_sizes(piece, "fdatasync")
write_sizes(1 << 20, "msync")
file = os.open("probe-map", os.O_RDWR | os.O_TRUNC)
os.write(file, b"a" * 2 * PAGE)
view = mmap.mmap(file, 2 * PAGE, prot=mmap.PROT_READ)
os.ftruncate(file, PAGE)
one, other = socket.socketpair()
try:
    print("send from behind the end:", one.send(memoryview(view)[PAGE:]))
except OSError as err:
    print("send from behind the end:", err)
if os.fork() == 0:
    view[PAGE]
print("load from behind the end: ended by signal", os.wait()[1] & 127)
os.unlink("probe-map")
