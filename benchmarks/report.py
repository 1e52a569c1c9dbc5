"""docs/performance.md with its plots, and the speed rows of the README, from the committed results and nothing else.

    python benchmarks/report.py            write them
    python benchmarks/report.py --check    say what differs from what is there, and exit with 1

Where a rival is faster than ours the page says so with the sentence benchmarks/reasons.json has for it; without one it
is not written.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from unrain.engine.benchmark import bystanders
from unrain.engine.benchmark.chart import Chart, Series, svg
from unrain.engine.benchmark.conditions import vectors
from unrain.engine.benchmark.results import PAST, percent, read
from unrain.engine.benchmark.roofline import roofline

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS, REASONS = HERE / "results", HERE / "reasons.json"
PAGE, PLOTS, README = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance", ROOT / "README.md"
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
SUITES = {
    "strangers": "Networks that are not ours",
    "realtime": "Frame in, frame out",
    "kernels": "Operations",
    "pipeline": "Stages of a pipeline",
    "training": "A step of training",
    "compile": "Modules of other projects",
    "export": "Export and first picture",
    "startup": "Start-up",
}
# The networks that stand for all: in the README at this size, and with all their rows on the page.
PICTURE = [256, 256]
HEADLINE = {
    "wiper": [720, 1280],
    "wiper-s": [1080, 1920],
    "wiper-l": [480, 640],
    **dict.fromkeys(("srn", "brn", "stagewise", "mspfn-light", "mlmcn-n1", "timelapse"), PICTURE),
}
NOISE = 0.05  # a rival must be faster by more than this to count as faster: medians of one run differ by as much
# What an engine row is measured against: rivals that compute no more coarsely than it may.
ALLOWED = {"fp32": ("fp32",), "auto": ("fp32", "bf16", "fp16"), "int8": ("fp32", "bf16", "fp16", "int8")}

Row = dict[str, Any]


class Unexplained(Exception):
    """A rival is faster and nothing says why."""


def main() -> int:
    files = written(RESULTS, README.read_text(), json.loads(REASONS.read_text()))
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the results give: make performance", file=sys.stderr)
        return 1 if stale else 0
    PLOTS.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(files[path])
    return 0


def written(results: Path, readme: str, reasons: dict[str, str]) -> dict[Path, str]:
    """Every generated file with its text."""
    machines = {folder.name: suites_of(folder) for folder in sorted(results.iterdir()) if folder.is_dir()}
    machines = {name: suites for name, suites in machines.items() if suites}
    plots: dict[Path, str] = {}
    parts = [OPENING]
    for name, suites in machines.items():
        parts += machine_part(name, suites, reasons, plots)
    begin, end = readme.index(BEGIN) + len(BEGIN), readme.index(END)
    rows = readme[:begin] + "\n" + headline(machines) + readme[end:]
    return {PAGE: "\n".join(parts).rstrip() + "\n", README: rows, **plots}


def suites_of(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob("*.json")):
        if "suite" in json.loads(path.read_text()):
            one = read(path)
            found[one["suite"]] = one
    return found


OPENING = f"""# Performance

Made by `make performance` from the results in `benchmarks/results`; change those, not this page. How to get results of
your own machine: `make bench`, or for one network `unrain bench srn`.

* Every result is compared with the plain reference before it is timed. What is wrong is called wrong and has no time.
* The contenders of a case run in one process and take turns, a run each a round; a figure is the median of its rounds.
  All have the same allocator (large blocks are kept), flushed denormals and the same number of threads.
* *of limit*: the time this machine would need at the very least, by the bytes that must move and the operations that
  must be done, as counted from the shapes, at the best copy bandwidth and matrix rate seen in the same run. *{PAST}*:
  it does less than was counted (data that stays in the caches, a first stage that starts from nothing, Winograd's form
  in results that do not count it).
* *times*: how many times ours is faster than this row. Below 1, ours lost.
"""


def machine_part(name: str, suites: dict[str, Any], reasons: dict[str, str], plots: dict[Path, str]) -> list[str]:
    networks = [one for suite, one in suites.items() if suite.startswith("bench-")]
    parts = [f"## {title_of(name, suites)}", "", *conditions(suites)]
    networks.sort(key=lambda one: (one["size"], one["model"]))
    parts += every_network(networks)
    for one in networks:
        if is_headline(one):
            parts += network_table(one)
    lost = [loss for suite, one in suites.items() for loss in losses(suite, one)]
    for suite, title in SUITES.items():
        if suite in suites:
            parts += [f"### {title}", "", *suite_tables(suites[suite])]
    for suite in ("kernels", *(f"bench-{one['model']}-{one['size'][0]}x{one['size'][1]}" for one in networks[:1])):
        if suite in suites:
            drawn = roofline(suites[suite], f"Roofline, {suite}, {suites[suite]['facts']['cpu']}")
            parts += figure(plots, f"{name}-roofline-{suite}", drawn)
    if "scaling" in suites:
        parts += ["### How cost grows", "", *scaling(name, suites["scaling"], plots)]
    return parts + losses_part(lost, reasons)


def title_of(name: str, suites: dict[str, Any]) -> str:
    facts = next(iter(suites.values()))["facts"]
    if "gpu" in facts:
        return facts["gpu"]["name"]
    return ", ".join(
        each for each in (f"{facts['cores']}-core {facts['cpu']}", vectors(facts.get("features", []))) if each
    )


def conditions(suites: dict[str, Any]) -> list[str]:
    one = next(iter(suites.values()))
    facts, limits = one["facts"], one["limits"]
    versions = [
        f"{key} {facts['versions'][key]}"
        for key in ("torch", "onnxruntime", "openvino", "triton")
        if key in facts["versions"]
    ]
    rates = ", ".join(f"{rate / 1e12:.2f} T {name}" for name, rate in limits["operations_per_second"].items())
    commits = sorted({each["facts"]["commit"] or "unknown" for each in suites.values()})
    lines = [
        f"{facts['threads']} threads; {', '.join(versions)}; Python {facts['versions']['python']}. It copies "
        f"{limits['copy_bytes_per_second'] / 1e9:.0f} GB/s and does {rates} operations/s in products of matrices.",
        f"Measured at {', '.join(f'`{commit}`' for commit in commits)} (+: with changes).",
    ]
    for suite, each in suites.items():
        company = bystanders.warning(each["facts"].get("cores_taken"), each["facts"]["cores"])
        if company:
            lines.append(f"**{suite}: {company}.**")
    if facts.get("clocks"):
        lines.append(f"Clocks: {', '.join(f'{key} {value}' for key, value in facts['clocks'].items())}.")
    return [*lines, ""]


READING = (
    "Milliseconds: the best rival that is right and computes no more coarsely (PyTorch channels-last, torch.compile, "
    "ONNX Runtime, OpenVINO), then unrain with a free choice of backend, and in brackets how many times faster "
    "that is than plain PyTorch in float32, and than the rival."
)


def every_network(networks: list[dict[str, Any]]) -> list[str]:
    if not networks:
        return []
    absent = (
        "An empty place has no figure that stands: what the engine chose was too coarse here, or chosen by a fault."
    )
    return ["### Every network", "", f"{READING} {absent}", "", *network_rows(networks), ""]


def network_rows(networks: list[dict[str, Any]]) -> list[str]:
    """A row for each: what the engine takes where it may choose its backend, and the fastest of the others."""
    lines = [
        "| network, size | plain | fp32: rival | unrain | auto: rival | unrain | int8: rival | unrain |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in networks:
        rows = {row["contender"]: row for row in one["rows"] if row["median_ms"]}
        plain = rows["eager fp32"]["median_ms"]
        cells = [f"{one['model']}, {one['size'][1]} x {one['size'][0]}", f"{plain:.0f}"]
        for asked in ALLOWED:
            ours = rows.get(f"auto {asked}")
            best = best_rival(list(rows.values()), asked)
            cells.append(f"{best['median_ms']:.0f} ({best['contender']})")
            time = ours["median_ms"] if ours else None
            shares = f" ({plain / time:.2f}x, {best['median_ms'] / time:.2f}x)" if time else ""
            cells.append(f"**{time:.0f}**{shares}" if time else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def best_rival(rows: list[Row], asked: str) -> Row:
    allowed = [row for row in rows if not row["ours"] and row["precision"] in ALLOWED[asked]]
    return min(allowed, key=lambda row: row["median_ms"])


def network_table(one: dict[str, Any]) -> list[str]:
    height, width = one["size"]
    stages = f", {one['stages']} stages" if one["stages"] else ""
    lines = [f"### {one['model']}, {width} x {height}", ""]
    lines += [
        f"{one['weights'].capitalize()} weights{stages}. *against eager*: plain PyTorch in float32 takes as many times "
        "longer.",
        "",
    ]
    lines += ["| way | runs | ms | quartiles | against eager | dB to fp32 | of limit | ready after |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|"]
    absent: dict[str, list[str]] = defaultdict(list)
    for row in one["rows"]:
        if row["median_ms"] is None:
            absent[row["reason"] or "not timed"].append(row["contender"])
            continue
        decibels = "reference" if row["required_db"] is None else number(row["fidelity_db"], 1) or "same"
        runs = row["runs"] if row["backend"] == "auto" else ""
        lines.append(
            f"| {bold(row, row['contender'])} | {runs} | {row['median_ms']:.1f} | {row['low_ms']:.1f} to "
            f"{row['high_ms']:.1f} | {row['times_eager']:.2f} | {decibels} | {percent(row['limit_share'])} "
            f"| {'' if row['ready_s'] is None else format(row['ready_s'], '.1f') + ' s'} |"
        )
    return [*lines, "", *absences(absent)]


def absences(absent: dict[str, list[str]]) -> list[str]:
    return [*(f"* {', '.join(names)}: {reason}" for reason, names in absent.items()), ""] if absent else []


def suite_tables(one: dict[str, Any]) -> list[str]:
    cases: dict[str, list[Row]] = defaultdict(list)
    for row in one["rows"]:
        cases[row["case"]].append(row)
    lines = ["| case | | ms | quartiles | times | of limit |", "|---|---|---:|---:|---:|---:|"]
    absent: dict[str, list[str]] = defaultdict(list)
    for case, rows in cases.items():
        first = case
        ours = rows[0]["median_ms"] if rows[0]["ours"] else None
        for row in rows:
            if row["median_ms"] is None:
                absent[row["reason"] or "not timed"].append(f"{row['contender']} ({case})")
                continue
            times = f"{row['median_ms'] / ours:.2f}" if ours else ""
            bound = f"{percent(row['limit_share'])} ({row['bound']})" if row["limit_share"] else ""
            name = bold(row, row["contender"])
            spread = f"{row['low_ms']:.2f} to {row['high_ms']:.2f}"
            lines.append(f"| {first} | {name} | {row['median_ms']:.2f} | {spread} | {times} | {bound} |")
            first = ""
    return [*lines, "", *absences(absent)]


def losses(suite: str, one: dict[str, Any]) -> list[tuple[str, str, str, float]]:
    """(case, ours, rival, how many times faster the rival is), for every rival that is faster."""
    cases: dict[str, list[Row]] = defaultdict(list)
    for row in one["rows"]:
        if row["median_ms"]:
            cases[row["case"]].append(row)
    found = []
    for case, rows in cases.items():
        for ours in (row for row in rows if row["ours"]):
            found += [
                (case, ours["contender"], row["contender"], ours["median_ms"] / row["median_ms"])
                for row in rows
                if rivals(suite, ours, row) and row["median_ms"] * (1 + NOISE) < ours["median_ms"]
            ]
    return found


def rivals(suite: str, ours: Row, row: Row) -> bool:
    """Whether the row is what ours should not be slower than."""
    if row["ours"] or row["contender"].endswith(" alone"):  # Python or torch by themselves are a floor, not a rival
        return False
    if suite.startswith("bench-"):
        # Where the engine itself runs that backend, the two rows are one and their distance is noise.
        chosen = ours["backend"] == "auto" and ours["runs"] != row["contender"]
        return chosen and row["precision"] in ALLOWED[ours["asked"]]
    if suite == "kernels":
        # Each in the layout it is given, of the tensors or of the module.
        return all(
            (words in ours["contender"]) == (words in row["contender"]) for words in ("channels-last", "eight conv")
        )
    return suite in SUITES


def losses_part(lost: list[tuple[str, str, str, float]], reasons: dict[str, str]) -> list[str]:
    lines = ["### Where a rival is faster", ""]
    if not lost:
        return [
            *lines,
            f"Nowhere in these tables, by more than the {100 * NOISE:.0f}% that medians of one run differ by.",
            "",
        ]
    missing = sorted({f"{case} | {ours}" for case, ours, _, _ in lost} - reasons.keys())
    if missing:
        raise Unexplained(f"benchmarks/reasons.json must say why ours is slower: {missing}")
    for key in dict.fromkeys(f"{case} | {ours}" for case, ours, _, _ in lost):
        faster = [f"{rival} {ratio:.2f}x" for case, ours, rival, ratio in lost if f"{case} | {ours}" == key]
        lines.append(f"* {key.replace(' | ', ', ')}: {', '.join(faster)} faster. {reasons[key]}")
    return [*lines, ""]


AXES = {
    "size": ("Cost per pixel against size", "pixels a side", "microseconds a pixel"),
    "stages": ("Cost against stages, 128 x 128", "stages", "milliseconds"),
    "threads": ("Cost against threads, 256 x 256", "threads", "milliseconds"),
    "memory": ("Peak memory against size", "thousand pixels", "MiB"),
}


def scaling(name: str, one: dict[str, Any], plots: dict[Path, str]) -> list[str]:
    lines: list[str] = []
    for axis, (title, x_title, y_title) in AXES.items():
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for row in one["rows"]:
            if row.get("axis") != axis or not row["median_ms"]:
                continue
            x, y = float(row["x"]), row["median_ms"]
            if axis == "size":
                y = 1e3 * y / row["pixels"]
            if axis == "memory":
                x, y = row["pixels"] / 1e3, row["peak_mib"]
            points[row["contender"]].append((x, y))
        if points:
            chart = Chart(f"srn: {title}", x_title, y_title, [Series(*each) for each in points.items()])
            lines += figure(plots, f"{name}-{axis}", chart)
            lines += points_table(x_title, points)
    return lines


def points_table(x_title: str, points: dict[str, list[tuple[float, float]]]) -> list[str]:
    xs = sorted({x for series in points.values() for x, _ in series})
    known = {way: dict(series) for way, series in points.items()}
    lines = [f"| {x_title} | " + " | ".join(points) + " |", "|---:|" + "---:|" * len(points)]
    for x in xs:
        cells = [three_digits(known[way][x]) if x in known[way] else "" for way in points]
        lines.append(f"| {x:.4g} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def figure(plots: dict[Path, str], name: str, chart: Chart) -> list[str]:
    plots[PLOTS / f"{name}.svg"] = svg(chart)
    return [f"![{chart.title}](performance/{name}.svg)", ""]


def headline(machines: dict[str, dict[str, Any]]) -> str:
    """The README's rows: the same for the networks that stand for all."""
    parts = []
    for name, suites in machines.items():
        shown = {one["model"]: one for suite, one in suites.items() if suite.startswith("bench-") and is_headline(one)}
        rows = network_rows([shown[model] for model in HEADLINE if model in shown])
        parts += [f"On a {title_of(name, suites)}:", "", *rows, ""] if shown else []
    if not parts:
        return ""
    faithful = "Every way is compared with the float32 reference first (60 dB in fp32, 50 for auto, 40 for int8)."
    page = "All tables, losses too: [docs/performance.md](docs/performance.md)."
    return "\n".join([*parts, f"{READING} {faithful} {page}", ""])


def is_headline(one: dict[str, Any]) -> bool:
    return one["size"] == HEADLINE.get(one["model"])


def bold(row: Row, text: str) -> str:
    return f"**{text}**" if row["ours"] else text


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unexplained as problem:
        print(f"report: {problem}", file=sys.stderr)
        sys.exit(1)
