"""Turns figures into ratios to the reference measured in the same round, and those into a table and JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

REFERENCE = "ssh-gcm"
PACKAGES = ("asyncssh", "uvloop", "cryptography", "django", "channels", "daphne")


@dataclass(frozen=True)
class Metric:
    title: str
    unit: str
    more_is_better: bool = False


def _transfers() -> dict[str, Metric]:
    found = {}
    for streams, words in ((1, "1 stream"), (8, "8 streams")):
        for mode, title in (("down", "Download"), ("up", "Upload")):
            name = f"{mode}{streams}"
            found[name] = Metric(f"{title}, {words}", "MB/s", more_is_better=True)
            found[f"{name}_client_cpu"] = Metric(f"{title}, {words}: client CPU", "s/GiB")
            found[f"{name}_sshd_cpu"] = Metric(f"{title}, {words}: sshd CPU", "s/GiB")
    return found


METRICS = {
    **_transfers(),
    "rtt_p50": Metric("Round trip of 64 bytes, p50", "µs"),
    "rtt_p99": Metric("Round trip of 64 bytes, p99", "µs"),
    "loaded_p50": Metric("Round trip beside a download, p50", "µs"),
    "loaded_p99": Metric("Round trip beside a download, p99", "µs"),
    "rate1": Metric("Connections one by one", "per s", more_is_better=True),
    "rate50": Metric("Connections 50 at a time", "per s", more_is_better=True),
    "far_down": Metric("Download over a round trip of 100 ms", "MB/s", more_is_better=True),
    "idle_pss": Metric("Memory per idle connection", "KiB"),
    "many_seconds": Metric("Many forwards: until all listen", "s"),
    "many_pss": Metric("Many forwards: memory of all", "MiB"),
    "further_pss": Metric("Many forwards: memory of each beyond the first", "KiB"),
}


@dataclass(frozen=True)
class Spread:
    """Median and range of what several rounds gave."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values), len(values))


class Results:
    """Figures by kind of forward, metric, contender and round."""

    def __init__(self, titles: dict[str, str]) -> None:
        self.titles = titles
        self.notes: list[str] = []
        self.figures: dict[str, dict[str, dict[str, dict[int, float]]]] = {}

    def add(self, kind: str, turn: int, contender: str, figures: dict[str, float]) -> None:
        for metric, value in figures.items():
            self.figures.setdefault(kind, {}).setdefault(metric, {}).setdefault(contender, {})[turn] = value

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)

    def absolute(self, kind: str, metric: str, contender: str) -> Spread | None:
        return Spread.of(list(self.figures.get(kind, {}).get(metric, {}).get(contender, {}).values()))

    def ratio(self, kind: str, metric: str, contender: str) -> Spread | None:
        """Compare a contender with the reference, over the rounds in which both were measured."""
        of_all = self.figures.get(kind, {}).get(metric, {})
        reference = of_all.get(REFERENCE, {})
        ours = of_all.get(contender, {})
        return Spread.of([value / reference[turn] for turn, value in ours.items() if reference.get(turn)])

    def table(self, kind: str) -> str:
        """Return the ratios of one kind of forward as a Markdown table."""
        found = self.figures.get(kind, {})
        seen = [name for name in self.titles if any(name in of_metric for of_metric in found.values())]
        others = [name for name in seen if name != REFERENCE]
        lines = [
            " | ".join(["| ", f"{self.titles[REFERENCE]} = 1", *(self.titles[name] for name in others)]) + " |",
            "|---" * (len(others) + 2) + "|",
        ]
        for name, metric in METRICS.items():
            if name in found:
                absolute = self.absolute(kind, name, REFERENCE)
                one = f"{number(absolute.median)} {metric.unit}" if absolute else "–"
                ratios = [cell(self.ratio(kind, name, other)) for other in others]
                arrow = "↑" if metric.more_is_better else "↓"
                lines.append(" | ".join([f"| {metric.title} {arrow}", one, *ratios]) + " |")
        return "\n".join(lines)

    def markdown(self, options: dict[str, Any]) -> str:
        told = [f"- {key}: {value}" for key, value in machine().items()]
        told.append("- sizes: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in options.items()))
        parts = [f"### {kind.capitalize()} forwards\n\n{self.table(kind)}" for kind in self.figures]
        legend = (
            f"Ratios to `{self.titles[REFERENCE]}` in the same round: median of the rounds (least–most). "
            "↑ more is better, ↓ less is better."
        )
        notes = [f"- {note}" for note in self.notes]
        return "\n\n".join([*parts, legend, *(["\n".join(notes)] if notes else []), "\n".join(told)])

    def json(self, options: dict[str, Any]) -> str:
        told: dict[str, Any] = {"machine": machine(), "options": options, "reference": REFERENCE, "notes": self.notes}
        told["titles"] = self.titles
        told["metrics"] = {name: asdict(metric) for name, metric in METRICS.items()}
        told["kinds"] = {
            kind: {
                metric: {
                    contender: {
                        "rounds": rounds,
                        "absolute": _plain(self.absolute(kind, metric, contender)),
                        "ratio": _plain(self.ratio(kind, metric, contender)),
                    }
                    for contender, rounds in of_metric.items()
                }
                for metric, of_metric in found.items()
            }
            for kind, found in self.figures.items()
        }
        return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def _plain(spread: Spread | None) -> dict[str, Any] | None:
    return asdict(spread) if spread else None


def number(value: float) -> str:
    """Return a figure with three significant digits, more only before the point."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def cell(ratio: Spread | None) -> str:
    if ratio is None:
        return "–"
    median, least, most = map(_ratio, (ratio.median, ratio.least, ratio.most))
    return median if ratio.rounds == 1 else f"**{median}** ({least}–{most})"


def _ratio(value: float) -> str:
    if abs(value) < 0.001:
        return "0"
    return f"{value:.3f}" if abs(value) < 0.1 else f"{value:.2f}"


def machine() -> dict[str, str]:
    """Return what the figures depend on beside the contenders."""
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, timeout=10)
    packages = []
    for name in PACKAGES:
        packages.append(f"{name} {metadata.version(name)}")
    return {
        "CPU": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "SSH": ssh.stderr.strip(),
        "Python": f"{platform.python_version()}, {', '.join(packages)}",
    }
