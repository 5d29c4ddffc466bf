# SPDX-License-Identifier: Apache-2.0
"""What the runs come to: medians and their ratios, as text, as tables, as a plot."""

import os
import platform
import statistics
import time

import plot

OURS, LIMIT = "rootlinkd", "limit"
RUN_COLUMNS = ("medium", "socket", "workload", "round", "server", "setting", "rate", "p50", "p99",
               "longest", "fairness", "cpu", "instructions", "memory", "growth", "processes",
               "beside", "generator_cpu", "failed")
FIGURES = ("rate", "p50", "p99", "longest", "fairness", "cpu", "instructions", "memory", "growth",
           "beside", "generator_cpu")


def score(run, by):
    """The more the better; 0 for what failed."""
    if "failed" in run:
        return 0
    if by == "p99":
        return 1e6 / run["p99"] if run["p99"] else 0
    if by == "memory":
        return 1e12 / max(run["memory"], 1)
    return run["rate"]


def number(value, digits=3):
    """For people: three figures, and thousands apart."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, digits - 1 - (len(str(int(abs(value)))) if abs(value) >= 1 else 0))}f}"


def mebibytes(count):
    return "-" if count is None else f"{count / (1 << 20):.1f}"


def say(run, file):
    where = f"{run['medium']} {run['socket']} {run['workload']} #{run['round'] + 1} "
    who = f"{run['server']} ({run['setting']}): "
    if "failed" in run:
        print(where + who + "FAILED: " + run["failed"], file=file, flush=True)
        return
    print(where + who + f"{number(run['rate'])}/s, p50 {number(run['p50'])} p99 "
          f"{number(run['p99'])} µs, CPU {number(run['cpu'])} µs "
          f"(generator {number(run['generator_cpu'])}), {mebibytes(run['memory'])} MiB",
          file=file, flush=True)


def medians(runs):
    """By (medium, socket, workload): by (server, setting): the median of each figure."""
    groups = {}
    for run in runs:
        place = groups.setdefault((run["medium"], run["socket"], run["workload"]), {})
        place.setdefault((run["server"], run["setting"]), []).append(run)
    result = {}
    for place, settings in groups.items():
        for who, all_runs in settings.items():
            good = [run for run in all_runs if "failed" not in run]
            # One that failed even once is none to be compared with.
            if len(good) < len(all_runs) or not good:
                continue
            row = {"rounds": len(good)}
            for figure in FIGURES:
                values = [run[figure] for run in good if run[figure] is not None]
                row[figure] = statistics.median(values) if values else None
            result.setdefault(place, {})[who] = row
    return result


def ratio(one, other):
    return one / other if one is not None and other else None


class Line:
    """One workload over one socket: ours, the best peer, the limit, and what they come to."""

    def __init__(self, place, rows, workload):
        self.medium, self.socket, self.workload = place[0], place[1], workload
        self.ours = self.limit = self.peer = None
        self.peer_name = ""
        # Only settings that took part in as many rounds as any did.
        most = max(row["rounds"] for row in rows.values())
        for (server, setting), row in rows.items():
            if row["rounds"] < most:
                continue
            value = score(row, workload.by)
            if server == OURS:
                if not self.ours or value > score(self.ours, workload.by):
                    self.ours = row
            elif server == LIMIT:
                if not self.limit or value > score(self.limit, workload.by):
                    self.limit = row
            elif not self.peer or value > score(self.peer, workload.by):
                self.peer, self.peer_name = row, f"{server} ({setting})"

    def get(self, who, figure):
        row = getattr(self, who)
        return row[figure] if row else None

    def ratio(self, what):
        """ "peer", "limit": of the rates; "cpu", "p99": to the best peer's."""
        if what in ("peer", "limit"):
            return ratio(self.get("ours", "rate"), self.get(what, "rate"))
        return ratio(self.get("ours", what), self.get("peer", what))

    def verdict(self, what):
        """Whether a goal is met; None where there is none, or nothing to compare."""
        goal = self.workload.goals[self.medium].get(what)
        if goal is None:
            return None
        if what in ("memory", "growth"):
            value = self.get("ours", what)
            # A page or two may be in use that was not before.
            return None if value is None else value <= goal + (256 << 10 if what == "growth" else 0)
        value = self.ratio(what)
        if value is None:
            return None
        return value >= goal if what in ("peer", "limit") else value <= goal

    def ratio_text(self, what):
        value, goal = self.ratio(what), self.workload.goals[self.medium].get(what)
        if value is None:
            return "-"
        if goal is None:
            return f"{value:.2f}"
        sign = "≥" if what in ("peer", "limit") else "≤"
        return f"{value:.2f} ({sign} {goal:g}{'' if self.verdict(what) else ', **not met**'})"


def lines_of(summary, workloads):
    order = {workload.name: index for index, workload in enumerate(workloads)}
    names = {workload.name: workload for workload in workloads}
    places = sorted(summary, key=lambda place: (
        ("tmpfs", "disk", "overlay").index(place[0]), ("unix", "tcp").index(place[1]),
        order[place[2]]))
    return [Line(place, summary[place], names[place[2]]) for place in places]


def table(heads, rows):
    text = "| " + " | ".join(heads) + " |\n|" + "|".join(
        " --- " if index < 1 else " --: " for index in range(len(heads))) + "|\n"
    return text + "".join("| " + " | ".join(row) + " |\n" for row in rows)


TITLES = {"tmpfs": "A file in tmpfs", "disk": "A disk file past the page cache",
          "overlay": "An overlay for each client"}


def speed_table(lines):
    rows = []
    for line in lines:
        rows.append([
            line.workload.title, number(line.get("ours", "rate")), line.peer_name or "-",
            number(line.get("peer", "rate")), line.ratio_text("peer"),
            number(line.get("limit", "rate")), line.ratio_text("limit"),
            number(line.get("ours", "cpu")), number(line.get("peer", "cpu")),
            line.ratio_text("cpu")])
    return table(["workload", "rootlinkd, a second", "best peer", "its rate", "ours / peer",
                  "limit", "ours / limit", "server CPU µs", "peer's", "CPU ours / peer"], rows)


def time_table(lines):
    rows = []
    for line in lines:
        rows.append([
            line.workload.title, number(line.get("ours", "p50")), number(line.get("peer", "p50")),
            number(line.get("limit", "p50")), number(line.get("ours", "p99")),
            number(line.get("peer", "p99")), number(line.get("limit", "p99")),
            line.ratio_text("p99"), number(line.get("ours", "fairness")),
            number(line.get("peer", "fairness")), mebibytes(line.get("ours", "memory")),
            mebibytes(line.get("peer", "memory")), number(line.get("ours", "instructions")),
            number(line.get("peer", "instructions")), number(line.get("limit", "instructions"))])
    return table(["workload", "p50 µs", "peer's", "limit's", "p99 µs", "peer's", "limit's",
                  "p99 ours / peer", "fairness", "peer's", "MiB", "peer's", "instructions",
                  "peer's", "limit's"], rows)


def beside(lines):
    """What else was done meanwhile, where a workload has more jobs than the one that counts."""
    return "".join(
        f"\n{line.workload.title}: the others had {number(line.get('ours', 'beside'))} requests a "
        f"second from rootlinkd, {number(line.get('peer', 'beside'))} from the best peer, "
        f"{number(line.get('limit', 'beside'))} from the limit.\n"
        for line in lines if len(line.workload.jobs) > 1)


def memory_table(lines, summary):
    """Figures that are about memory: every server's, since the best peer may be another in each."""
    rows = []
    for line in lines:
        for (server, setting), row in sorted(
                summary[line.medium, line.socket, line.workload.name].items()):
            goal = ""
            if server == OURS:
                for what in ("memory", "growth"):
                    if line.verdict(what) is not None:
                        limit = line.workload.goals[line.medium][what]
                        goal = f"{what} ≤ {limit >> 20} MiB: " + (
                            "met" if line.verdict(what) else "**not met**")
            rows.append([f"{line.workload.title}, {line.socket}", f"{server} ({setting})",
                         mebibytes(row["memory"]), f"{row['growth'] / 1024:,.0f}", goal])
    return table(["workload", "server", "MiB at most", "KiB grown", "goal"], rows)


def machine():
    model = "?"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for text in file:
            if text.startswith("model name"):
                model = text.split(":", 1)[1].strip()
                break
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}"


def write(runs, workloads, options, took):
    os.makedirs(options.out, exist_ok=True)
    with open(f"{options.out}/runs.tsv", "w", encoding="utf-8") as file:
        file.write("\t".join(RUN_COLUMNS) + "\n")
        for run in runs:
            cells = [run.get(column) for column in RUN_COLUMNS]
            file.write("\t".join("" if cell is None else f"{cell:.6g}" if isinstance(cell, float)
                                 else str(cell).replace("\t", " ").replace("\n", " ")
                                 for cell in cells) + "\n")
    summary = medians(runs)
    lines = lines_of(summary, workloads)
    text = f"# rootlinkd beside its peers\n\n{time.strftime('%Y-%m-%d')}, {machine()}. "
    text += (f"Medians of {options.rounds} rounds of {options.seconds:g} s, "
             f"{took / 60:.0f} minutes in all; load average {os.getloadavg()[1]:.1f} at the end. ")
    if not any(run.get("counter") for run in runs if "failed" not in run):
        text += ("This machine counts no instructions (perf_event_open); those shown are of the "
                 "server's own code only, counted one by one. ")
    text += "\nHow to read this: docs/benchmarks.md.\n"
    for medium in ("tmpfs", "disk"):
        for socket in ("unix", "tcp"):
            some = [line for line in lines
                    if (line.medium, line.socket) == (medium, socket) and not line.workload.once]
            if some:
                name = {"unix": "Unix socket", "tcp": "TCP over loopback"}[socket]
                text += f"\n## {TITLES[medium]}, {name}\n\n" + speed_table(some)
                text += "\n" + time_table(some) + beside(some)
    some = [line for line in lines if line.workload.once]
    if some:
        text += "\n## Memory\n\n" + memory_table(some, summary)
    failed = sorted({f"{run['server']} ({run['setting']}), {run['workload']}, {run['socket']}: "
                     f"{run['failed']}" for run in runs if "failed" in run})
    if failed:
        text += "\n## What failed\n\n" + "".join(f"- {one}\n" for one in failed)
    with open(f"{options.out}/report.md", "w", encoding="utf-8") as file:
        file.write(text)
    write_summary(summary, lines, options.out)
    with open(f"{options.out}/ratios.svg", "w", encoding="utf-8") as file:
        file.write(plot.svg([line for line in lines if not line.workload.once]))
    print(text)
    print(f"Written to {options.out}: report.md, summary.tsv, settings.tsv, runs.tsv, ratios.svg")


def write_summary(summary, lines, directory):
    with open(f"{directory}/summary.tsv", "w", encoding="utf-8") as file:
        file.write("medium\tsocket\tworkload\tpeer\tours_per_peer\tours_per_limit\tcpu_per_peer\t"
                   "p99_per_peer\tnot_met\n")
        for line in lines:
            missed = [what for what in line.workload.goals[line.medium]
                      if line.verdict(what) is False]
            cells = [line.medium, line.socket, line.workload.name, line.peer_name]
            for what in ("peer", "limit", "cpu", "p99"):
                value = line.ratio(what)
                cells.append("" if value is None else f"{value:.4g}")
            file.write("\t".join(cells + [",".join(missed)]) + "\n")
    with open(f"{directory}/settings.tsv", "w", encoding="utf-8") as file:
        file.write("\t".join(("medium", "socket", "workload", "server", "setting", "rounds",
                              *FIGURES)) + "\n")
        for place, rows in summary.items():
            for who, row in rows.items():
                file.write("\t".join([*place, *who, str(row["rounds"]), *[
                    "" if row[figure] is None else f"{row[figure]:.6g}"
                    for figure in FIGURES]]) + "\n")
