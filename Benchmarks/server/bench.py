#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""rootlinkd beside nbd-server, nbdkit, qemu-nbd and a bare responder, in turns.

docs/benchmarks.md says what is measured and how to read it. Results: out/bench/.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import report
from servers import LIMIT, OURS, PEERS, TOP, Failure, Running, settings

HERE = os.path.dirname(os.path.abspath(__file__))


class Workload:
    """Jobs for the generator, of which the first is the one that counts. `goals`: what rootlinkd
    shall reach; see docs/benchmarks.md. `by`: what decides which setting is a server's best."""

    def __init__(self, name, title, *jobs, goals=None, disk_goals=None, by="rate", media=("tmpfs",),
                 once=False, first=None, steps=False):
        self.name, self.title, self.jobs, self.by, self.media = name, title, jobs, by, media
        self.goals = {"tmpfs": goals or {}, "disk": disk_goals or {}, "overlay": goals or {}}
        self.once = once    # Needs no rounds: a figure about memory.
        self.steps = steps  # Instructions can be counted one by one: not too many a request.
        self.first = first  # A job that fills pools and caches, and is not looked at.


BOTH = ("tmpfs", "disk")
SMALL = {"peer": 2.5, "cpu": 0.5, "limit": 0.5}


def large(peer):
    return {"peer": peer, "cpu": 0.8, "limit": 0.8}


STORM = "connections=200,depth=4,block=131072,span=67108864"
WORKLOADS = [
    Workload("read-4k-q1", "4 KiB random read, QD 1", "read,random,block=4096",
             goals={"peer": 1.0, "cpu": 0.8, "limit": 0.5}, disk_goals={"peer": 1.0}, media=BOTH,
             steps=True),
    Workload("read-4k-q32", "4 KiB random read, QD 32", "read,random,block=4096,depth=32",
             goals=SMALL, disk_goals={"peer": 1.3}, media=BOTH,
             steps=True),
    Workload("read-4k-4xq32", "4 KiB random read, 4 × QD 32",
             "read,random,block=4096,depth=32,connections=4",
             goals=SMALL, disk_goals={"peer": 1.3}, media=BOTH,
             steps=True),
    Workload("write-4k-q32", "4 KiB random write, QD 32", "write,random,block=4096,depth=32",
             goals=SMALL, disk_goals={"peer": 1.0}, media=BOTH,
             steps=True),
    Workload("write-4k-4xq32", "4 KiB random write, 4 × QD 32",
             "write,random,block=4096,depth=32,connections=4",
             goals=SMALL, disk_goals={"peer": 1.0}, media=BOTH,
             steps=True),
    Workload("read-128k-q16", "128 KiB random read, QD 16", "read,random,block=131072,depth=16",
             goals=large(1.3), disk_goals={"peer": 1.0}, media=BOTH),
    Workload("read-1m-q8", "1 MiB sequential read, QD 8", "read,sequential,block=1048576,depth=8",
             goals=large(1.0), disk_goals={"peer": 1.0}, media=BOTH),
    Workload("write-1m-q8", "1 MiB sequential write, QD 8",
             "write,sequential,block=1048576,depth=8",
             goals=large(1.0), disk_goals={"peer": 1.0}, media=BOTH),
    Workload("handshakes", "handshakes, 4 clients", "handshake,threads=4", goals=large(1.5)),
    Workload("read-64k-100", "64 KiB reads, 100 streams",
             "read,sequential,block=65536,connections=100", goals=large(1.4)),
    Workload("storm", "boot storm, 200 clients", "read,sequential," + STORM,
             goals={"peer": 1.5, "cpu": 0.8, "limit": 0.8, "p99": 0.25}),
    Workload("mixed", "4 KiB reads beside 8 streams of 1 MiB", "read,random,block=4096",
             "read,sequential,block=1048576,connections=8", goals={"p99": 1.0}, by="p99"),
    Workload("idle-1000", "1,000 idle connections", "idle,connections=1000",
             goals={"memory": 32 << 20}, by="memory", once=True),
    Workload("handshakes-10000", "10,000 handshakes in a row", "handshake,count=10000",
             goals={"growth": 0}, by="rate", once=True, first="handshake,count=1000"),
    Workload("storm-overlay", "boot storm, 200 clients with an overlay each",
             "read,sequential,writes=20," + STORM,
             goals={"memory": 64 << 20}, media=("overlay",), once=True),
]
QUICK = ("read-4k-q32", "write-4k-q32", "read-128k-q16", "handshakes")


def build(directory):
    """Compiles the generator and the responder when their sources are newer."""
    os.makedirs(directory, exist_ok=True)
    programs = {
        "load": ["load.c", "job.c", "client.c", "usage.c", "steps.c", "pattern.c"],
        "limit": ["limit.c", "limit-direct.c", "client.c", "-luring"],
    }
    for name, words in programs.items():
        target = f"{directory}/{name}"
        files = [f"{HERE}/{file}" for file in os.listdir(HERE) if file.endswith((".c", ".h"))]
        if os.path.exists(target) and all(
                os.path.getmtime(file) < os.path.getmtime(target) for file in files):
            continue
        subprocess.run(
            [os.environ.get("CC", "gcc"), "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o",
             target, *[word if word.startswith("-") else f"{HERE}/{word}" for word in words]],
            check=True)
    return {name: f"{directory}/{name}" for name in programs}


class Bench:
    def __init__(self, options, programs):
        self.options, self.programs, self.runs = options, programs, []
        self.scratch = tempfile.mkdtemp(prefix="rootlink-bench-")
        self.media = {
            "tmpfs": f"{options.tmpfs}/rootlink-bench-{os.getpid()}",
            "disk": f"{options.disk}/rootlink-bench-{os.getpid()}",
        }
        self.media["overlay"] = self.media["tmpfs"]

    def make_medium(self, medium):
        path = self.media[medium]
        if not os.path.exists(path):
            subprocess.run([self.programs["load"], "--fill", path, str(self.options.size)],
                           check=True)
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        return path

    def clean(self):
        for path in set(self.media.values()):
            if os.path.exists(path):
                os.unlink(path)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def drop_cache(self, path):
        """So that nobody finds in memory what another brought there."""
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def spread(self, job):
        """Jobs over several connections may have several threads."""
        many = "connections=" in job and not job.startswith("idle")
        return f"{job},threads={self.options.threads}" if many else job

    def measure(self, setting, workload, medium, kind, seed, stepping=False):
        """One run; a dictionary of figures, or of what failed."""
        path = self.make_medium(medium)
        if medium == "disk":
            self.drop_cache(path)
        load = self.programs["load"]
        try:
            server = Running(setting, path, kind, f"{self.scratch}/s")
        except Failure as failure:
            return {"failed": str(failure)}
        name = "bench" if setting.server == "nbd-server" else ""
        try:
            if setting.filled:
                subprocess.run([load, "--fill", f"--export={name}", server.address,
                                str(self.options.size)], check=True, capture_output=True)
            if workload.first:
                subprocess.run([load, f"--export={name}", server.address, workload.first],
                               check=True, capture_output=True, timeout=300)
            words = [load, f"--seconds={self.options.seconds}", f"--server={server.pid}",
                     f"--warm-up={min(0.2, self.options.seconds / 4)}", f"--export={name}",
                     *(["--steps", "--seconds=10"] if stepping else []), f"--seed={seed}",
                     *(["--verify"] if self.options.verify else []),
                     server.address, *[self.spread(job) for job in workload.jobs]]
            done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode != 0:
                alive = "" if server.is_alive() else "; the server is gone: " + server.said()
                return {"failed": done.stderr.strip() + alive}
            return figures(json.loads(done.stdout))
        except subprocess.SubprocessError as error:
            return {"failed": str(error)}
        finally:
            server.end()

    def run(self, workload, medium, kind, candidates):
        """All rounds of one workload, over one kind of socket."""
        rounds = self.options.rounds
        if workload.once:
            # Memory does not vary from run to run: everybody's first setting, once.
            firsts = {one.server: one for one in reversed(candidates)}
            rounds, candidates = 1, [one for one in candidates if firsts[one.server] is one]
        for number in range(rounds):
            # Nobody is always the first, or always behind the same one.
            turned = candidates[number % len(candidates):] + candidates[:number % len(candidates)]
            for setting in turned:
                result = self.measure(setting, workload, medium, kind, number + 1)
                result.update(medium=medium, socket=kind, workload=workload.name, round=number,
                              server=setting.server, setting=setting.name)
                self.runs.append(result)
                report.say(result, sys.stderr)
            if number == 0 and not self.options.all:
                candidates = self.survivors(workload, medium, kind, candidates)
        if self.options.steps and workload.steps:
            self.count_instructions(workload, medium, kind, candidates)

    def count_instructions(self, workload, medium, kind, candidates):
        """Of each server's best setting, where the processor does not count them."""
        rows = report.medians(self.runs).get((medium, kind, workload.name), {})
        best = {}
        for who, row in rows.items():
            if row["instructions"] is None and row["rounds"] == self.options.rounds:
                old = best.get(who[0])
                if not old or report.score(row, workload.by) > report.score(rows[old], workload.by):
                    best[who[0]] = who
        for setting in candidates:
            if (setting.server, setting.name) not in best.values():
                continue
            result = self.measure(setting, workload, medium, kind, 1, stepping=True)
            for run in self.runs:
                if (run["medium"], run["socket"], run["workload"], run["server"], run["setting"]
                        ) == (medium, kind, workload.name, setting.server, setting.name):
                    run["instructions"] = result.get("instructions")
            print(f"{medium} {kind} {workload.name} {setting.server} ({setting.name}): "
                  f"{report.number(result.get('instructions'))} instructions a request "
                  f"{result.get('failed', '')}", file=sys.stderr, flush=True)

    def survivors(self, workload, medium, kind, candidates):
        """After the first round, of each server only the settings that may be its best."""
        scores = {}
        for run in self.runs:
            if (run["medium"], run["socket"], run["workload"]) == (medium, kind, workload.name):
                scores[run["server"], run["setting"]] = report.score(run, workload.by)
        best = {}
        for (server, _), score in scores.items():
            best[server] = max(best.get(server, 0), score)
        return [one for one in candidates
                if scores[one.server, one.name] > 0
                and scores[one.server, one.name] >= 0.8 * best[one.server]]


def figures(output):
    """What of the generator's output is kept, under the names of the columns."""
    job, server = output["jobs"][0], output["server"]
    done = sum(one["done"] for one in output["jobs"])
    instructions = server["instructions"]
    return {
        "rate": job["ops_per_second"], "p50": job["p50_us"], "p99": job["p99_us"],
        "longest": job["longest_us"],
        "fairness": (job["least_of_a_client"] / job["most_of_a_client"]
                     if job["most_of_a_client"] else None),
        "cpu": server["cpu_us"] / done if done else None,
        "instructions": instructions / done if instructions is not None and done else None,
        "counter": instructions is not None,
        "memory": server["anon_peak"], "growth": server["anon_after"] - server["anon_at_rest"],
        "processes": server["processes"],
        "generator_cpu": output["generator_cpu_us"] / done if done else None,
        "beside": sum(one["ops_per_second"] for one in output["jobs"][1:]),
    }


def choose(text, known, what):
    chosen = list(known) if text == "all" else text.split(",")
    for one in chosen:
        if one not in known:
            sys.exit(f"bench.py: there is no {what} '{one}'; there are: {', '.join(known)}")
    return chosen


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--workloads", help="names, joined by commas (default: all): " +
                        ", ".join(names))
    parser.add_argument("--servers", default="all",
                        help="of rootlinkd, limit, nbdkit, qemu-nbd, nbd-server")
    parser.add_argument("--sockets", default="all", help="of unix, tcp")
    parser.add_argument("--media", help="of tmpfs, disk, overlay (default: all)")
    parser.add_argument("--settings", default="", help="only settings with this in their name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run")
    parser.add_argument("--threads", type=int, default=1, help="of the generator, for loads over "
                        "several connections")
    parser.add_argument("--size", type=int, default=1 << 30, help="of the medium, in bytes")
    parser.add_argument("--quick", action="store_true", help="a look at whether all works: one "
                        "short round of a few workloads over a small file")
    parser.add_argument("--all", action="store_true", help="all settings in all rounds")
    parser.add_argument("--no-steps", dest="steps", action="store_false", help="count no "
                        "instructions one by one, where the processor does not count them")
    parser.add_argument("--verify", action="store_true", help="compare what is read with what "
                        "should be there (the generator then costs more)")
    parser.add_argument("--rootlinkd", default=f"{TOP}/out/rootlinkd")
    parser.add_argument("--tmpfs", default="/dev/shm", help="a directory in memory")
    parser.add_argument("--disk", default="/var/tmp", help="a directory on a disk")
    parser.add_argument("--out", default=f"{TOP}/out/bench")
    parser.add_argument("--programs", help="where the generator and the responder are built "
                        "(default: bin below the directory of --out)")
    options = parser.parse_args()
    if options.quick:
        options.steps = False
        options.rounds, options.seconds = 1, min(options.seconds, 0.2)
        options.size = min(options.size, 64 << 20)
        options.workloads = options.workloads or ",".join(QUICK)
        options.media = options.media or "tmpfs"
    options.workloads = choose(options.workloads or "all", names, "workload")
    options.servers = choose(options.servers, (OURS, LIMIT, *PEERS), "server")
    options.sockets = choose(options.sockets, ("unix", "tcp"), "socket")
    options.media = choose(options.media or "all", ("tmpfs", "disk", "overlay"), "medium")
    return options


def main():
    options = parse_arguments()
    # Whoever ends this ends the servers, too, and leaves no file behind.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    programs = build(options.programs or f"{options.out}/bin")
    programs["rootlinkd"] = os.path.abspath(options.rootlinkd)
    if OURS in options.servers and not os.access(programs["rootlinkd"], os.X_OK):
        sys.exit(f"bench.py: there is no {options.rootlinkd}; run make")
    started = time.monotonic()
    bench = Bench(options, programs)
    try:
        for medium in options.media:
            for kind in options.sockets:
                for workload in WORKLOADS:
                    if workload.name not in options.workloads or medium not in workload.media:
                        continue
                    # qemu-nbd would take ten minutes for its handshakes over TCP.
                    if workload.once and kind != options.sockets[0]:
                        continue
                    candidates = [one for one in settings(programs, options.size)
                                  if medium in one.media and one.server in options.servers
                                  and options.settings in one.name]
                    bench.run(workload, medium, kind, candidates)
    finally:
        bench.clean()
    report.write(bench.runs, WORKLOADS, options, time.monotonic() - started)
    failed = [run for run in bench.runs if run["server"] == OURS and "failed" in run]
    return 1 if failed or not bench.runs else 0


if __name__ == "__main__":
    sys.exit(main())
