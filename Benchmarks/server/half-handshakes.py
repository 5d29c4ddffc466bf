#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What slow clients cost the others: 4 KiB reads with 32 in flight, alone and beside 200 connections
that never get on with their handshake but send a byte of it now and then. In turns; the ratio of the
medians is what counts. Run make bench before, which builds the generator.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import tempfile
import threading

import bench
from servers import TOP, Running, Setting, rootlinkd

BYTES = b"\0\0\0\3IHAVEOPT\0\0\0\7\0\0\1\0"  # The flags, and the head of an option that never comes.


class HalfHandshakes:
    def __init__(self, address, count):
        self.sockets = []
        for _ in range(count):
            one = socket.socket(socket.AF_UNIX)
            one.connect(address.removeprefix("unix:"))
            self.sockets.append(one)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.drip)
        self.thread.start()

    def drip(self):
        sent = [0] * len(self.sockets)
        while not self.over.wait(0.05):
            for index in range(0, len(self.sockets), 20):
                if sent[index] < len(BYTES):
                    self.sockets[index].send(BYTES[sent[index]:sent[index] + 1])
                    sent[index] += 1

    def end(self):
        self.over.set()
        self.thread.join()
        for one in self.sockets:
            one.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each run")
    parser.add_argument("--count", type=int, default=200, help="of half handshakes")
    parser.add_argument("--rootlinkd", default=f"{TOP}/out/rootlinkd")
    options = parser.parse_args()
    load = bench.build(f"{TOP}/out/bench/bin")["load"]
    figures = {False: [], True: []}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        medium = f"{directory}/medium"
        subprocess.run([load, "--fill", medium, str(256 << 20)], check=True)
        setting = Setting("rootlinkd", "default", rootlinkd(os.path.abspath(options.rootlinkd)))
        server = Running(setting, medium, "unix", f"{directory}/s")
        try:
            for number in range(2 * options.rounds):
                is_beside = number % 4 in (1, 2)
                half = HalfHandshakes(server.address, options.count) if is_beside else None
                try:
                    done = subprocess.run(
                        [load, f"--seconds={options.seconds}", f"--server={server.pid}",
                         server.address, "read,random,block=4096,depth=32"],
                        check=True, capture_output=True, timeout=60)
                finally:
                    if half:
                        half.end()
                figures[is_beside].append(json.loads(done.stdout)["jobs"][0])
        finally:
            server.end()
    for what, unit in (("ops_per_second", "requests a second"), ("p99_us", "µs, p99")):
        alone, beside = (statistics.median(one[what] for one in figures[key])
                         for key in (False, True))
        print(f"alone {alone:,.0f}, beside {options.count} half handshakes {beside:,.0f} {unit}: "
              f"{beside / alone:.3f}")


if __name__ == "__main__":
    main()
