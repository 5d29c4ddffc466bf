# SPDX-License-Identifier: Apache-2.0
"""The plot: for each workload how many times the best peer rootlinkd is, and how near each of the
two comes to the limit. Written by hand, since the standard library draws nothing."""

import math
from xml.sax.saxutils import escape

LEFT, ROW, BAR, PANEL, GAP, TOP = 300, 46, 14, 380, 60, 96
COLOURS = {("ours", "unix"): "#1f5fa8", ("ours", "tcp"): "#7fb0e0",
           ("peer", "unix"): "#b0642b", ("peer", "tcp"): "#e2b48c"}
NAMES = {"unix": "Unix", "tcp": "TCP"}
MEDIA = {"tmpfs": "", "disk": " (disk)"}


def text(x, y, words, anchor="start", size=12, weight="normal", fill="#222"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'font-weight="{weight}" fill="{fill}">{escape(words)}</text>\n')


def bar(x, y, width, height, colour):
    return (f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height}" '
            f'fill="{colour}"/>\n')


def upright(x, top, bottom, colour, width=1, dashes=""):
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{colour}" '
            f'stroke-width="{width}"{dashed}/>\n')


class Panel:
    """A picture of ratios side by side: bars from the left, and an axis that ends at `end`."""

    def __init__(self, x, title, end, steps, bottom):
        self.x, self.end, self.bottom = x, end, bottom
        self.out = text(x, TOP - 34, title, size=14, weight="bold")
        for step in steps:
            self.out += upright(self.at(step), TOP - 8, bottom, "#ddd" if step != 1 else "#555")
            self.out += text(self.at(step), TOP - 14, f"{step:g}", "middle", 11, fill="#555")

    def at(self, value):
        return self.x + PANEL * min(value, self.end) / self.end

    def bar(self, y, value, colour, height, label):
        self.out += bar(self.x, y, self.at(value) - self.x, height, colour)
        self.out += text(self.at(value) + 4, y + height - 2, label, size=10 if height > 8 else 8)

    def goal(self, y, value, height):
        self.out += upright(self.at(value), y - 2, y + height + 2, "#c00", 2)


def svg(lines):
    """Lines of the report that have a rate to compare, as one SVG document."""
    groups = {}
    for line in lines:
        if line.medium in MEDIA and line.ratio("peer") is not None:
            groups.setdefault((line.medium, line.workload.name), []).append(line)
    if not groups:
        return ('<svg xmlns="http://www.w3.org/2000/svg" width="400" height="40">'
                + text(10, 25, "Nothing was compared with anything.") + "</svg>\n")
    most = max(line.ratio("peer") for group in groups.values() for line in group)
    goals = [line.workload.goals[line.medium].get("peer", 0) for group in groups.values()
             for line in group]
    end = math.ceil(max(most + 0.1, *goals, 1) * 2 + 0.1) / 2
    step = next(one for one in (0.5, 1, 2, 5, 10, 20, 50, 1e9) if end / one <= 8)
    bottom = TOP + ROW * len(groups)
    width, height = LEFT + 2 * PANEL + 2 * GAP + 20, bottom + 60
    steps = sorted({1, *[step * i for i in range(int(end / step) + 1)]})
    times = Panel(LEFT, "requests a second: rootlinkd ÷ best peer", end, steps, bottom)
    share = Panel(LEFT + PANEL + GAP, "share of the limit (a bare responder)", 1.2,
                  [0, 0.2, 0.4, 0.6, 0.8, 1], bottom)
    labels = ""
    for index, ((medium, _), group) in enumerate(groups.items()):
        y = TOP + ROW * index + 6
        title = group[0].workload.title + MEDIA[medium]
        labels += text(LEFT - 12, y + BAR + 4, title, "end")
        for line in group:
            row = y + (BAR + 3) * ("unix", "tcp").index(line.socket)
            value = line.ratio("peer")
            times.bar(row, value, COLOURS["ours", line.socket], BAR, f"{value:.2f}")
            goal = line.workload.goals[medium].get("peer")
            if goal:
                times.goal(row, goal, BAR)
            for who, offset in (("ours", 0), ("peer", BAR // 2)):
                rate, limit = line.get(who, "rate"), line.get("limit", "rate")
                if rate is not None and limit:
                    share.bar(row + offset, rate / limit, COLOURS[who, line.socket], BAR // 2,
                              f"{rate / limit:.2f}")
            goal = line.workload.goals[medium].get("limit")
            if goal and line.get("limit", "rate"):
                share.goal(row, goal, BAR // 2)
    legend, x = "", LEFT
    for (who, socket), colour in COLOURS.items():
        legend += bar(x, bottom + 22, 14, 12, colour)
        words = f"{'rootlinkd' if who == 'ours' else 'best peer'}, {NAMES[socket]}"
        legend += text(x + 20, bottom + 32, words)
        x += 135
    legend += upright(x, bottom + 20, bottom + 36, "#c00", 2) + text(x + 8, bottom + 32, "goal")
    return ('<!-- SPDX-License-Identifier: Apache-2.0 -->\n'
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif">\n'
            f'<rect width="{width}" height="{height}" fill="white"/>\n'
            + text(20, 32, "rootlinkd beside nbd-server, nbdkit and qemu-nbd", size=18,
                   weight="bold")
            + times.out + share.out + labels + legend + "</svg>\n")
