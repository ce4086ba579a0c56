"""The table and the picture of `benchmarks.reproduce.self_informed`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TASKS = ("100 classes", "120 labels", "deep base")
PAPER = {
    "base": (36.80, 1.0),
    "confusions": (39.41, 1.026),
    "confusions, randomized": (32.97, 1.026),
    "co-detections": (38.07, 1.053),
    "co-detections, randomized": (32.13, 1.053),
}
"""mAP at 50 in per cent, and extra computation (Table 2)."""

Records = dict[str, Any]
"""By "task/seed/variant": what was measured."""


def summarize(records: Records, variants: list[str]) -> str:
    """Return the means over seeds beside the paper's Table 2."""
    lines: list[str] = []
    for task in TASKS:
        lines += [
            "",
            f"{task}: mean and standard deviation over seeds",
            f"{'':28}{'accuracy':>16}{'mAP@5':>16}{'mAP - base':>18}"
            f"{'cost':>9}{'paper: mAP':>12}{'cost':>8}",
        ]
        for variant in ("base", *variants):
            seeds = [
                key.split("/")[1]
                for key in records
                if key.startswith(f"{task}/") and key.endswith(f"/{variant}")
            ]
            if not seeds:
                continue
            rows = [records[f"{task}/{s}/{variant}"] for s in seeds]
            bases = [records[f"{task}/{s}/base"] for s in seeds]
            columns = [
                [100 * row["accuracy"] for row in rows],
                [100 * row["map"] for row in rows],
                [
                    100 * (row["map"] - base["map"])
                    for row, base in zip(rows, bases, strict=True)
                ],
            ]
            shown = [f"{np.mean(c):6.2f} ± {np.std(c):.2f}" for c in columns]
            cost = np.mean(
                [
                    row["multiply_adds"] / base["multiply_adds"]
                    for row, base in zip(rows, bases, strict=True)
                ]
            )
            paper = PAPER.get(variant)
            beside = f"{paper[0]:12.2f}{paper[1]:8.3f}" if paper else ""
            lines.append(
                f"{variant:28}{shown[0]:>16}{shown[1]:>16}{shown[2]:>18}{cost:9.3f}"
                f"{beside}"
            )
        lines += _superclass_lines(records, task) + _conditional_lines(records, task)
    return "\n".join(lines)


def _superclass_lines(records: Records, task: str) -> list[str]:
    lines = ["groups and superclasses (drawn by lot): purity, kept together, ARI"]
    for variant in ("confusions", "co-detections"):
        rows = [
            r["superclasses"]
            for key, r in records.items()
            if key.startswith(f"{task}/") and key.endswith(f"/{variant}")
        ]
        if rows:
            cells = [
                f"{np.mean([r[n] for r in rows]):.2f} "
                f"({np.mean([r[n + '_by_lot'] for r in rows]):.2f})"
                for n in ("purity", "kept_together", "adjusted_rand")
            ]
            lines.append(f"  {variant:26}{cells[0]:>16}{cells[1]:>16}{cells[2]:>18}")
    return lines


def _conditional_lines(records: Records, task: str) -> list[str]:
    rows = [
        r["conditional"]
        for key, r in records.items()
        if key.startswith(f"{task}/") and "conditional" in r
    ]
    bases = [
        r["multiply_adds"]
        for key, r in records.items()
        if key.startswith(f"{task}/") and key.endswith("/base")
    ]
    lines = ["heads of so many best classes only: accuracy, mAP, extra cost"]
    for index, first in enumerate(rows[0] if rows else []):
        extra = np.mean([r[index]["multiply_adds"] for r in rows]) / bases[0] - 1
        accuracy, precision = (
            100 * np.mean([r[index][n] for r in rows]) for n in ("accuracy", "map")
        )
        which = "all" if first["top_k"] is None else f"{first['top_k']}"
        lines.append(
            f"  {which:26}{accuracy:16.2f}{precision:16.2f}{100 * extra:17.2f}%"
        )
    return lines


def draw(records: Records, variants: list[str], title: str, file: Path) -> None:
    """Plot each variant's gain over its base, a point a seed."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True)
    for ax, task in zip(axes, TASKS, strict=True):
        for place, variant in enumerate(variants):
            gains = [
                100 * (r["map"] - records[key.replace(variant, "base")]["map"])
                for key, r in records.items()
                if key.startswith(f"{task}/") and key.endswith(f"/{variant}")
            ]
            ax.plot(gains, [place] * len(gains), "o", color="tab:blue", alpha=0.5)
            if gains:
                ax.plot(np.mean(gains), place, "|", color="black", markersize=16)
            if variant in PAPER:
                paper = PAPER[variant][0] - PAPER["base"][0]
                ax.plot(paper, place, "x", color="tab:red")
        ax.axvline(0, color="0.6", linewidth=1, zorder=0)
        ax.set(title=task, xlabel="gain in mAP@5 over the base, points")
    axes[0].set_yticks(range(len(variants)), variants)
    axes[0].invert_yaxis()
    handles = [
        axes[1].plot([], [], "o", color="tab:blue", alpha=0.5, label="one seed")[0],
        axes[1].plot([], [], "|k", markersize=12, label="mean")[0],
        axes[1].plot([], [], "xr", label="paper (JFT, mAP@50)")[0],
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    figure.set_layout_engine("constrained")
    figure.savefig(file, dpi=120)
