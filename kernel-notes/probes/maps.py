#!/usr/bin/env python3
"""Shows what a write through a map costs the disk, and what reading a map behind a file's end does."""
import mmap
import os
import socket

SIZE = 64 << 20
PAGE = 4096


def device_bytes(path):
    """Bytes that the device under a file was sent so far, by all programs."""
    number = os.stat(path).st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    with open(f"/sys/dev/block/{name}/stat") as stat:
        return int(stat.read().split()[6]) * 512


def write_sizes(piece):
    file = os.open("probe-map", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for at in range(0, SIZE, piece):
        os.pwrite(file, bytes(piece), at)
    os.fsync(file)
    view = mmap.mmap(file, SIZE)
    for how in ("map", "pwrite"):
        before = device_bytes("probe-map")
        for at in range(0, 50 << 20, 1 << 20):
            if how == "map":
                view[at : at + PAGE] = b"m" * PAGE
            else:
                os.pwrite(file, b"w" * PAGE, at)
            os.fdatasync(file)
        each = (device_bytes("probe-map") - before) / 50 / 1024
        print(f"zeros in pieces of {piece >> 10:4} KiB, 4 KiB by {how:6} and fdatasync: {each:7.1f} KiB to the device")
    view.close()
    os.close(file)


write_sizes(PAGE)
write_sizes(1 << 20)
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
