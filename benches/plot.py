#!/usr/bin/env python3
"""Draws docs/latency.svg from the data of `cargo bench --bench latency`.

    python3 benches/plot.py [target/latency.csv [docs/latency.svg]]

A lane for each way, and in it for each twentieth of a second the greatest and the least latency: no
maximum is lost by the thinning.
"""

import csv
import math
import pathlib
import sys
from collections import defaultdict

COLOURS = ["#6b7280", "#1d6fd1", "#c2700a", "#c22f2f"]
WIDTH, LEFT, RIGHT, TOP, LANE, GAP, BOTTOM = 860, 70, 20, 64, 96, 30, 44
LEAST, MOST = 0.1, 1000.0  # milliseconds
BUCKET = 50.0  # milliseconds
FONT = "font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\""


def main(source="target/latency.csv", target="docs/latency.svg"):
    ways = read(source)
    end = math.ceil(max(at for samples in ways.values() for at, _ in samples) / 1000)
    height = TOP + len(ways) * (LANE + GAP) - GAP + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {FONT} '
        'font-size="12" fill="#374151" role="img">',
        "<title>Latency of requests over ten lives of an access token</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        text(LEFT, 26, "Latency of each request while tokens come and go", 'font-size="16" font-weight="600" fill="#111827"'),
        text(LEFT, 45, "An access token lives 3 s, a refresh takes 500 ms; 100 requests a second each, over loopback"),
    ]
    for number, (way, samples) in enumerate(ways.items()):
        top = TOP + number * (LANE + GAP)
        parts += lane(top, way, samples, COLOURS[number % len(COLOURS)], end)
    bottom = height - BOTTOM
    step = max(1, round(end / 10))
    for second in range(0, end + 1, step):
        parts.append(text(x(second, end), bottom + 16, second, 'text-anchor="middle"'))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, bottom + 34, "seconds", 'text-anchor="middle"'))
    middle = (TOP + bottom) / 2
    turned = f'text-anchor="middle" transform="rotate(-90 18 {middle:.0f})"'
    parts.append(text(18, middle, "milliseconds, log scale", turned))
    parts.append("</svg>\n")
    pathlib.Path(target).write_text("\n".join(parts))


def read(source):
    """Time and latency of each request, in milliseconds, by way."""
    ways = defaultdict(list)
    with open(source, newline="") as file:
        for row in csv.DictReader(file):
            ways[row["way"]].append((float(row["scheduled_ms"]), float(row["latency_ms"])))
    return ways


def lane(top, way, samples, colour, end):
    latencies = sorted(latency for _, latency in samples)
    median, most = latencies[len(latencies) // 2], latencies[-1]
    yield text(LEFT, top + 11, way, f'font-weight="600" fill="{colour}"')
    figures = f"median {median:.1f} ms, longest {most:.0f} ms"
    yield text(WIDTH - RIGHT, top + 11, figures, 'text-anchor="end"')
    for latency in (0.1, 1, 10, 100, 1000):
        height = y(top, latency)
        yield f'<path d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>'
        if latency in (1, 10, 100, 1000):
            yield text(LEFT - 6, height + 4, latency, 'text-anchor="end" font-size="10"')
    buckets = defaultdict(list)
    for at, latency in samples:
        buckets[int(at / BUCKET)].append(latency)
    path = "".join(
        f"M{x(bucket * BUCKET / 1000, end):.1f} {y(top, max(found)):.1f}V{y(top, min(found)):.1f}"
        for bucket, found in sorted(buckets.items())
    )
    yield f'<path d="{path}" stroke="{colour}" stroke-width="1.3" stroke-linecap="round" fill="none"/>'


def x(second, end):
    return LEFT + (WIDTH - RIGHT - LEFT) * second / end


def y(top, latency):
    """Higher is slower; the lane's first 16 pixels are its title's."""
    part = math.log(min(max(latency, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return top + LANE - part * (LANE - 18)


def text(left, base, content, attributes=""):
    return f'<text x="{left:.1f}" y="{base:.1f}" {attributes}>{content}</text>'


if __name__ == "__main__":
    main(*sys.argv[1:])
