#!/usr/bin/env python3
"""Shows what fdatasync says after a write-back that failed, when it is asked again, and what is left. Needs root.

A file system lies on a loop device whose backing file lies in a tmpfs. The blocks of one file are punched out of
the backing file and the tmpfs is filled: from then on the device answers writes to these blocks with an error, and
to all others as usual.
"""
import errno
import os
import subprocess
import tempfile

RECORDS = 50
SIZE = 4096


def run(*command):
    """A command that must succeed; what it printed."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    return subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": path}).stdout.strip()


def answer(call, *arguments):
    try:
        call(*arguments)
        return "success"
    except OSError as error:
        return errno.errorcode[error.errno]


def new_records(path):
    """How many of the records in the file are those of the second writing."""
    with open(path, "rb") as file:
        return sum(file.read(SIZE) == b"n" * SIZE for _ in range(RECORDS))


def extents(path):
    """Places of a file on its device, in bytes."""
    for line in run("filefrag", "-e", "-b512", path).splitlines():
        parts = [part.strip() for part in line.replace("..", ":").split(":")]
        if parts[0].isdigit():
            first, last = int(parts[3]), int(parts[4])
            yield first * 512, (last - first + 1) * 512


def fill(path):
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, SIZE):
            while answer(file.write, bytes(size)) == "success":
                pass


def probe(folder, *mkfs):
    room, mount = folder + "/room", folder + "/mount"
    image, log, filler = room + "/image", mount + "/log", room + "/filler"
    os.makedirs(room)
    os.makedirs(mount)
    run("mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", room)
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    device = run("losetup", "--find", "--show", image)
    try:
        run(*mkfs, device)
        run("mount", device, mount)
        file = os.open(log, os.O_RDWR | os.O_CREAT)
        os.pwrite(file, b"o" * SIZE * RECORDS, 0)
        os.fsync(file)
        run("sync", "--file-system", mount)
        for at, size in extents(log):
            run("fallocate", "--punch-hole", "--offset", str(at), "--length", str(size), image)
        fill(filler)
        for record in range(RECORDS):
            os.pwrite(file, b"n" * SIZE, record * SIZE)
        print(f"{mkfs[0]}: {RECORDS} records written, then fdatasync: {answer(os.fdatasync, file)}")
        print(f"{mkfs[0]}: fdatasync again: {answer(os.fdatasync, file)}")
        late = os.open(log, os.O_RDWR)
        print(f"{mkfs[0]}: fdatasync of a descriptor opened since: {answer(os.fdatasync, late)}")
        print(f"{mkfs[0]}: the file is read: {new_records(log)} of {RECORDS} records")
        os.close(late)
        os.close(file)
        os.unlink(filler)
        run("umount", mount)
        run("mount", device, mount)
        print(f"{mkfs[0]}: unmounted, mounted, read: {new_records(log)} of {RECORDS} records")
    finally:
        subprocess.run(["umount", "--quiet", mount], check=False)
        run("losetup", "--detach", device)
        run("umount", "--lazy", room)


with tempfile.TemporaryDirectory() as top:
    # Blocks of a page: of a request that begins in a page that is still there, a loop device takes a part for all.
    probe(top + "/ext4", "mkfs.ext4", "-q", "-b", "4096")
    probe(top + "/xfs", "mkfs.xfs", "-q")
