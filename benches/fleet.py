#!/usr/bin/env python3
"""Draws docs/fleet.svg from what `cargo bench --bench fleet` prints.

    python3 benches/fleet.py [docs/fleet.csv [docs/fleet.svg]]
"""

import csv
import math
import pathlib
import sys

WITHOUT, WITH = "#c22f2f", "#1d6fd1"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 380, 86, 24, 70, 52
MOST = 2_000_000  # refreshes in a second
FONT = "font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\""


def main(source="docs/fleet.csv", target="docs/fleet.svg"):
    with open(source, newline="") as file:
        rows = [{name: int(value) for name, value in row.items()} for row in csv.DictReader(file)]
    without = {row["seconds_before_end"]: row["without_jitter"] for row in rows}
    jitter = {row["seconds_before_end"]: row["with_jitter"] for row in rows}
    first = max(without)
    count = sum(without.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT} '
        'font-size="12" fill="#374151" role="img">',
        "<title>Refreshes per second of a fleet whose tokens end together</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
        text(LEFT, 28, f"{count:,} sessions whose tokens end at the same moment",
             'font-size="16" font-weight="600" fill="#111827"'),
        text(LEFT, 48, "Each has a request in every second; the refresh window is 60 s"),
    ]
    for power in range(7):
        height = y(10**power)
        parts.append(f'<path d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>')
        parts.append(text(LEFT - 8, height + 4, f"{10**power:,}", 'text-anchor="end"'))
    for second in range(0, first + 1, 10):
        parts.append(text(x(second, first), HEIGHT - BOTTOM + 18, second, 'text-anchor="middle"'))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14,
                      "seconds before the tokens end", 'text-anchor="middle"'))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'text-anchor="middle" transform="rotate(-90 18 {middle:.0f})"'
    parts.append(text(18, middle, "refreshes per second, log scale", turned))
    for series, colour in ((jitter, WITH), (without, WITHOUT)):
        parts += bars(series, colour, first)
    most = max(without, key=without.get)
    parts.append(text(x(most, first) + 14, y(without[most]) + 4,
                      f"without jitter: {without[most]:,} in one second",
                      f'font-weight="600" fill="{WITHOUT}"'))
    last = min(second for second, refreshes in jitter.items() if refreshes)
    parts.append(text(x(last, first) + 8, y(max(jitter.values())) + 4,
                      f"with jitter: {max(jitter.values()):,} at most",
                      f'font-weight="600" fill="{WITH}"'))
    parts.append("</svg>\n")
    pathlib.Path(target).write_text("\n".join(parts))


def bars(series, colour, first):
    width = x(0, first) - x(1, first) - 2
    for second, refreshes in sorted(series.items(), reverse=True):
        if refreshes:
            left, top = x(second, first) - width / 2, y(refreshes)
            yield (f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
                   f'height="{HEIGHT - BOTTOM - top:.1f}" fill="{colour}" fill-opacity="0.75"/>')


def x(second, first):
    """The end of the tokens is on the right."""
    return WIDTH - RIGHT - 10 - (WIDTH - RIGHT - LEFT - 20) * second / first


def y(refreshes):
    part = math.log(max(refreshes, 1)) / math.log(MOST)
    return HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP)


def text(left, base, content, attributes=""):
    return f'<text x="{left:.1f}" y="{base:.1f}" {attributes}>{content}</text>'


if __name__ == "__main__":
    main(*sys.argv[1:])
