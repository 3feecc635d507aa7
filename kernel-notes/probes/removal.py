#!/usr/bin/env python3
"""What producers notice while a broker removes many segments at once: removal.py CORELANE CORELANE_BENCH [async|sync].

Fills eleven segments of 1 GiB below the current folder, sends 20,000 messages a second (sync: 5,000) for ten seconds,
and lets the broker find after three of them that the disk is too full. Prints the response times of those ten seconds.
"""

import json
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SEGMENTS = 11
MESSAGES_A_SEGMENT = 900_000
PORT = 21911


def change_setting(text):
    """Request 25, UPDATE_BROKER_CONFIG, as mqadmin updateBrokerConfig sends it."""
    header = {"code": 25, "language": "JAVA", "version": 479, "opaque": 1, "flag": 0, "extFields": {}}
    header, body = json.dumps(header).encode(), text.encode()
    with socket.create_connection(("127.0.0.1", PORT)) as connection:
        connection.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
        connection.recv(4096)


def produce(bench, *arguments):
    words = [bench, "produce", "--addr", f"127.0.0.1:{PORT}", "--topic", "t", "--cpu", "1", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=900)


def number(tree, name):
    if not isinstance(tree, dict):
        return None
    if name in tree:
        return tree[name]
    found = (number(value, name) for value in tree.values())
    return next((value for value in found if value is not None), None)


def main(corelane, bench, flush="async"):
    folder = Path(tempfile.mkdtemp(prefix="removal-", dir="."))
    words = ["taskset", "-c", "0", corelane, "serve", "--store", folder / "store", "--shards", "1", "--flush", flush,
             "--port", str(PORT), "--nameserver-port", str(PORT + 20)]
    with open(folder / "log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        time.sleep(1)
        count = str(SEGMENTS * MESSAGES_A_SEGMENT)
        fill = ["--connections", "64", "--in-flight", "16", "--count", count, "--warmup", "0", "--duration", "600"]
        produce(bench, *fill, "--read-back", "none")
        time.sleep(3)
        later = threading.Timer(3, change_setting, ["diskSpaceCleanForciblyRatio=10\n"])
        later.start()
        rate = "20000" if flush == "async" else "5000"
        load = ["--connections", "16", "--in-flight", "16", "--rate", rate, "--warmup", "1", "--duration", "10"]
        run = produce(bench, *load, "--own-delay", "tell", "--json", str(folder / "run.json"))
        later.join()
        removed = (folder / "log").read_text(encoding="utf-8", errors="replace").count("segment removed")
        figures = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        names = ["response_p50_ns", "response_p99_ns", "response_p999_ns", "response_max_ns"]
        times = ", ".join(f"{name[9:-3]} {number(figures, name) / 1e6:.2f} ms" for name in names)
        print(f"{removed} segments removed, exit {run.returncode}: {times}")
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
