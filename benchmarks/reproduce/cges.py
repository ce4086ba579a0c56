"""The accuracy that sparsity costs: the thesis's Figure 3 and Table 2.

A network is trained with L2, L1, group, exclusive and CGES penalties over a range of
strengths, and pruned iteratively to a tenth of its parameters; means over seeds of the
test accuracy, the share of parameters and of multiply-adds left, counted by element and
after compaction, and the latency of the compacted network beside the dense one's.

    python -m benchmarks.reproduce.cges --data FOLDER              # MNIST, Table 2
    python -m benchmarks.reproduce.cges --data FOLDER --small      # MNIST, Figure 3
    python -m benchmarks.reproduce.cges --data FOLDER --dataset cifar100   # GPU
    python -m benchmarks.reproduce.cges --data FOLDER --dataset cifar100 --smoke

Without ``--small`` it is the thesis's network and all images, for 20 epochs, with L2
and CGES, whole and pruned: about half an hour for each network on one core.
``--small`` is 4,000 training images, a quarter of the channels and an eighth of the
hidden units, 12 epochs: about 20 minutes in all. FOLDER holds the data set's ``.npz``.
The strengths for CIFAR-100 are MNIST's, not yet tuned.

Every run leaves a record and its network in ``--work``, and a checkpoint after every
epoch, so that the command can be stopped and called again, or given ``--minutes 5``. At
the end the table is printed, and the JSON and the PNG are written to
``benchmarks/results``. ``--smoke`` is a few images, to see that everything runs; it
writes to ``--work`` only.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.data import load_images
from benchmarks.networks import paper_convnet, small_resnet
from sklearn_structreg import CGESClassifier
from sklearn_structreg.cges import TradeOffDisplay
from sklearn_structreg.compaction import size_report

RESULTS = Path(__file__).parents[1] / "results"

PENALTIES: dict[str, dict[str, Any]] = {
    "L2": {"penalty": "l2"},
    "L1": {"penalty": "l1"},
    "GS-filter": {"penalty": "group", "groups": "filter"},
    "GS-feature": {"penalty": "group", "groups": "feature"},
    "ES": {"penalty": "exclusive"},
    "CGES": {"penalty": "cges"},
    "CGES, bare": {"penalty": "cges", "layer_scale": None, "ramp": 0, "refit": 0},
}
"""The names of Figure 3, then CGES without constants, ramp and refit, as printed."""

PAPER = {
    "mnist": """\
thesis, full MNIST: L2 99.20 %; CGES 99.20 % with 63.52 % of the parameters and 85.54 %
of the FLOPs; at 10 % of the parameters by iterative pruning 98.71 % (Han et al.) and
99.16 % (with CGES)""",
    "cifar100": """\
thesis, WRN-16-10: CGES 1.15 points below L2 with 51.22 % of the parameters and 57.23 %
of the FLOPs""",
}


@dataclass(frozen=True)
class Setting:
    """A data set, a network and a training."""

    dataset: str
    network: Callable[..., nn.Module]
    n_train: int
    n_test: int
    max_epochs: int
    batch_size: int
    strengths: dict[str, tuple[float, ...]]
    pruned: dict[str, float]  # the strength beside iterative pruning
    n_repeats: int  # of a forward pass, for the latency
    n_seeds: int = 3
    learning_rate: float = 0.05


STRENGTHS = {
    "L2": (1e-4, 1e-3),
    "L1": (0.1, 0.3, 1.0, 3.0),
    "GS-filter": (0.1, 0.3, 0.6, 1.0),
    "GS-feature": (0.1, 0.3, 0.6, 1.0),
    "ES": (0.1, 0.3, 1.0, 3.0),
    "CGES": (0.3, 1.0, 3.0, 10.0),
    "CGES, bare": (1e-3, 3e-3, 1e-2),
}
PRUNED = {"L2": 1e-4, "CGES": 0.3}
SETTINGS = {
    "mnist": Setting(
        "mnist", paper_convnet, 60_000, 10_000, 20, 100,
        {"L2": (1e-4,), "CGES": (0.3, 1.0)}, PRUNED, 11, n_seeds=2,
    ),
    "mnist small": Setting(
        "mnist", partial(paper_convnet, widths=(8, 16), n_hidden=128),
        4_000, 10_000, 12, 50, STRENGTHS, PRUNED, 51,
    ),
    "cifar100": Setting(
        "cifar100", small_resnet, 50_000, 10_000, 60, 128,
        STRENGTHS, PRUNED, 5,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One network to train."""

    penalty: str
    alpha: float
    density: float | None
    seed: int

    @property
    def label(self) -> str:
        """The name of the run's files."""
        pruned = "" if self.density is None else f"-pruned{self.density:g}"
        name = self.penalty.replace(", ", "-")
        return f"{name}-{self.alpha:g}{pruned}-seed{self.seed}"


def runs(setting: Setting) -> Iterator[Run]:
    """Yield all runs, seed by seed."""
    for seed in range(setting.n_seeds):
        for penalty, strengths in setting.strengths.items():
            yield from (Run(penalty, alpha, None, seed) for alpha in strengths)
        for penalty, alpha in setting.pruned.items():
            yield Run(penalty, alpha, 0.1, seed)


def load(setting: Setting, folder: Path | None) -> tuple[np.ndarray, ...]:
    """Load images as float32 (n, C, H, W), each channel with mean 0 and deviation 1."""
    X, y, X_test, y_test = load_images(setting.dataset, folder)
    X, y = X[: setting.n_train], y[: setting.n_train]
    X_test, y_test = X_test[: setting.n_test], y_test[: setting.n_test]
    X, X_test = (x if x.ndim == 4 else x[..., None] for x in (X, X_test))
    X, X_test = (np.moveaxis(x, -1, 1).astype(np.float32) for x in (X, X_test))
    mean, deviation = X.mean((0, 2, 3), keepdims=True), X.std((0, 2, 3), keepdims=True)
    return (X - mean) / deviation, y, (X_test - mean) / deviation, y_test


def train(
    setting: Setting, run: Run, data: Sequence[np.ndarray], checkpoint: Path
) -> tuple[dict[str, Any], nn.Module]:
    """Train one network; return its record, and itself on the CPU."""
    X, y, X_test, y_test = data
    model = CGESClassifier(
        setting.network,
        **PENALTIES[run.penalty],
        alpha=run.alpha,
        target_density=run.density,
        max_epochs=setting.max_epochs,
        batch_size=setting.batch_size,
        learning_rate=setting.learning_rate,
        lr_schedule="cosine",
        random_state=run.seed,
        checkpoint=checkpoint,
    )
    start = time.perf_counter()
    model.fit(X, y)
    record = {
        "penalty": run.penalty,
        "alpha": run.alpha,
        "target_density": run.density,
        "seed": run.seed,
        "accuracy": model.score(X_test, y_test),
        "parameters": model.n_nonzero_parameters_ / model.n_parameters_,
        "layer_sparsity": model.history_[-1, "layer_sparsity"],
        "fit_seconds": time.perf_counter() - start,
    }
    return record, model.module_.cpu()


def train_all(
    setting: Setting, data: Sequence[np.ndarray], work: Path, deadline: float
) -> None:
    """Train what is not yet there, until the deadline."""
    work.mkdir(parents=True, exist_ok=True)
    for run in runs(setting):
        target = work / f"{run.label}.json"
        if target.exists():
            continue
        if time.monotonic() > deadline:
            print("time is up; call again for the rest")
            return
        record, module = train(setting, run, data, work / run.label)
        torch.save(module.state_dict(), target.with_suffix(".pt"))
        target.write_text(json.dumps(record, indent=1) + "\n")
        print(
            f"{run.label:32} accuracy {record['accuracy']:.4f}  "
            f"parameters {record['parameters']:6.1%}  {record['fit_seconds']:.0f} s",
            flush=True,
        )


def measure(
    setting: Setting, data: Sequence[np.ndarray], work: Path
) -> list[dict[str, Any]]:
    """Return the records of the runs that are there, with the sizes of their networks.

    Latencies are medians over batches of 100 on one CPU thread, dense and compacted in
    turns.
    """
    records = []
    X, y = data[0], data[1]
    for run in runs(setting):
        target = work / f"{run.label}.json"
        if not target.exists():
            continue
        record = json.loads(target.read_text())
        if "sizes" not in record:
            module = setting.network(X.shape[1:], len(np.unique(y))).eval()
            module.load_state_dict(torch.load(target.with_suffix(".pt")))
            sizes = size_report(
                module, torch.from_numpy(X[:100]), n_repeats=setting.n_repeats
            )
            record["sizes"] = {
                "parameters": sizes.n_nonzero / sizes.n_parameters,
                "flops": sizes.nonzero_flops / sizes.flops,
                "compact_parameters": sizes.n_compact / sizes.n_parameters,
                "compact_flops": sizes.compact_flops / sizes.flops,
                "compact_latency": sizes.compact_latency / sizes.latency,
            }
            target.write_text(json.dumps(record, indent=1) + "\n")
        records.append(record)
    return records


def name_of(record: dict[str, Any]) -> str:
    pruned = record["target_density"]
    return record["penalty"] + ("" if pruned is None else f", pruned to {pruned:.0%}")


def spread(values: Sequence[float]) -> str:
    """Write mean and standard deviation in per cent."""
    deviation = 100 * np.std(values, ddof=1) if len(values) > 1 else np.nan
    return f"{100 * np.mean(values):5.2f} +- {deviation:4.2f}"


def tabulate(records: list[dict[str, Any]]) -> dict[str, dict[float, dict[str, Any]]]:
    """Print means over seeds; return the values by name and strength."""
    table: dict[str, dict[float, dict[str, Any]]] = {}
    for record in records:
        cell = table.setdefault(name_of(record), {}).setdefault(record["alpha"], {})
        values = {key: record[key] for key in ("accuracy", "seed")} | record["sizes"]
        for key, value in values.items():
            cell.setdefault(key, []).append(value)
    reference = max(table.get("L2", {}).values(), key=lambda c: np.mean(c["accuracy"]))
    plain = dict(zip(reference["seed"], reference["accuracy"], strict=True))
    print(
        "mean +- deviation over seeds; above L2: mean +- deviation of the differences, "
        "seed by seed\n"
        f"{'':>44} {'by element, % left':>30} {'compacted, % left':>22}\n"
        f"{'':>20}{'alpha':>8}  {'accuracy':>13}  {'above L2':>13} {'params':>8}"
        f" {'FLOPs':>7} {'params':>7} {'FLOPs':>7} {'latency':>7}  seeds"
    )
    columns = ["parameters", "flops"]
    columns += [f"compact_{name}" for name in (*columns, "latency")]
    for name, strengths in table.items():
        for alpha, cell in strengths.items():
            pairs = zip(cell["seed"], cell["accuracy"], strict=True)
            gains = [a - plain[seed] for seed, a in pairs if seed in plain]
            shares = "".join(f" {100 * np.mean(cell[key]):7.1f}" for key in columns)
            print(
                f"{name:>20} {alpha:7g}  {spread(cell['accuracy'])}  {spread(gains)} "
                f"{shares}  {len(gains):5d}"
            )
    return table


def compare(table: dict[str, dict[float, dict[str, Any]]]) -> None:
    """Print the mean accuracies at equal shares of parameters, linear in between."""
    levels = np.array([0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    print("\naccuracy at a share of parameters (%), interpolated between strengths")
    print(f"{'':>20}" + "".join(f"{100 * level:8.0f}" for level in levels))
    for name, strengths in table.items():
        points = [
            (np.mean(cell["parameters"]), 100 * np.mean(cell["accuracy"]))
            for cell in strengths.values()
        ]
        if len(points) > 1:
            left, accuracy = np.transpose(sorted(points))
            at = np.interp(levels, left, accuracy, left=np.nan, right=np.nan)
            cells = ["       -" if np.isnan(a) else f"{a:8.2f}" for a in at]
            print(f"{name:>20}" + "".join(cells))


def draw(table: dict[str, dict[float, dict[str, Any]]], target: Path) -> None:
    """Draw Figure 3 of what all seeds are there for."""
    n_seeds = max(len(c["accuracy"]) for s in table.values() for c in s.values())
    curves = {}
    for name, strengths in table.items():
        if "layer_scale" in PENALTIES.get(name, {}):
            continue
        cells = [c for c in strengths.values() if len(c["accuracy"]) == n_seeds]
        # A network that guesses would leave no room for the others.
        cells = [c for c in cells if np.mean(c["accuracy"]) > 0.5]
        if cells:
            curves[name] = {
                "scores": [c["accuracy"] for c in cells],
                "parameters": [c["parameters"] for c in cells],
                "multiply_adds": [c["flops"] for c in cells],
            }
    if curves:
        display = TradeOffDisplay(curves, reference="L2" if "L2" in curves else None)
        display.plot().figure_.savefig(target, dpi=120)


def report(
    setting: Setting, data: Sequence[np.ndarray], work: Path, target: Path
) -> None:
    """Print the tables, write the JSON and the PNG."""
    records = measure(setting, data, work)
    if not records:
        return
    print(
        f"\n{setting.dataset}: {setting.n_train} training images, {setting.max_epochs} "
        f"epochs, batches of {setting.batch_size}\n{PAPER[setting.dataset]}\n"
    )
    table = tabulate(records)
    compare(table)
    draw(table, target.with_suffix(".png"))
    target.with_suffix(".json").write_text(json.dumps(records, indent=1) + "\n")


def smoke(setting: Setting) -> Setting:
    """Return as small a setting as goes through every step."""
    return replace(
        setting,
        n_train=200,
        n_test=200,
        max_epochs=2,
        n_seeds=1,
        n_repeats=1,
        strengths={name: values[:1] for name, values in setting.strengths.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the .npz of the images")
    parser.add_argument("--dataset", default="mnist", choices=["mnist", "cifar100"])
    parser.add_argument("--small", action="store_true", help="for a CPU")
    parser.add_argument("--work", type=Path, help="folder of the runs")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--smoke", action="store_true", help="see that it runs")
    arguments = parser.parse_args()
    name = arguments.dataset + (" small" if arguments.small else "")
    setting = SETTINGS[name]
    if arguments.smoke:
        name, setting = f"{name} smoke", smoke(setting)
    label = f"cges_{name.replace(' ', '_')}"
    work = arguments.work or Path("build") / label
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    data = load(setting, arguments.data)
    deadline = time.monotonic() + 60 * arguments.minutes
    train_all(setting, data, work, deadline)
    torch.set_num_threads(1)  # for the latencies
    report(setting, data, work, (work if arguments.smoke else RESULTS) / label)


if __name__ == "__main__":
    main()
