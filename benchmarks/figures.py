"""Draw the charts of the documentation from the results on file; nothing is measured.

    python -m benchmarks.figures [NAME ...]

Each is a function of this file, and writes ``benchmarks/results/charts/NAME.png``. The
numbers behind them, as tables, are on the documentation's page of all results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.charts import draw_dots, draw_lines
from benchmarks.reproduce.self_informed_report import TASKS
from benchmarks.value import selection as ways
from benchmarks.value import size as sizes
from benchmarks.value import wide as tables
from benchmarks.value.confusions import N_TRAIN
from benchmarks.value.pruning import DENSITIES, NETWORKS, SETTINGS, tuned
from benchmarks.value.runs import Runs
from benchmarks.value.section import RESULTS
from benchmarks.value.standing import differences, entries, groups_of, label

CHARTS: dict[str, Callable[[Path], None]] = {}
FOLDER = RESULTS / "charts"


def chart(draw: Callable[[Path], None]) -> Callable[[Path], None]:
    """Add a function to the charts, by its name."""
    CHARTS[draw.__name__] = draw
    return draw


def runs_of(name: str) -> Runs:
    """Return the runs of a section."""
    return Runs(RESULTS / f"{name}.jsonl")


def results_of(name: str) -> Any:
    """Return a file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def percent(values: Any) -> list[float]:
    """Return shares in per cent."""
    return [100 * float(each) for each in np.atleast_1d(values)]


# ---- the suite -----------------------------------------------------------------


@chart
def gain_blockout(path: Path) -> None:
    """Blockout on each data set of the suite."""
    draw_gains(path, "Blockout", "Dropout")


@chart
def gain_dropcluster(path: Path) -> None:
    """DropCluster on the images of the suite."""
    draw_gains(path, "DropCluster", "Dropout", "DropBlock")


def draw_gains(path: Path, method: str, *rivals: str) -> None:
    runs = runs_of("value_small")
    found = entries(runs)
    shown = [(method, "default"), *((name, "tuned") for name in (method, *rivals))]
    rows = {}
    for names in groups_of(runs).values():
        for name in names:
            if found[shown[0]].get(name) and not name.endswith("scaled"):  # the same
                rows[name] = {
                    label(entry): differences(found, entry, name) for entry in shown
                }
    draw_dots(path, {"": rows}, "accuracy above the plain net, points", reference=0)


FLAT = [
    *("MLPClassifier", "HistGradientBoosting", "RandomForest", "RealMLP-TD-S"),
    *("L1 logistic regression", "L2 logistic regression"),
]
"""Contestants that see flat rows of an image."""


@chart
def shift(path: Path) -> None:
    """Corrupted images: accuracy minus the plain net's, of networks that see images."""
    runs = runs_of("value_small")
    found, names = entries(runs), groups_of(runs)["images"]
    rows = {}
    for entry in found:
        means = [differences(found, entry, name, of="corrupted") for name in names]
        values = [float(np.mean(each)) for each in means if each]
        if values and np.ptp(values) and entry[0] not in FLAT:
            rows[label(entry)] = {"a set": values}
    draw_dots(
        path,
        {"": rows},
        "points above the plain net, three sets",
        reference=0,
        seeds=True,
        ours=lambda name: name.startswith(("CGES", "Blockout", "DropCl", "Self")),
    )


@chart
def learning_rate(path: Path) -> None:
    """How far each rate is below the best one of its set."""
    runs = runs_of("learning_rate")
    panels = {}
    for optimizer in runs.values("optimizer"):
        of = {"optimizer": optimizer}
        rates = dict.fromkeys(row["rate"] for row in runs.select(**of))
        table = np.array(
            [
                [runs.mean("accuracy", data=name, rate=rate, **of) for rate in rates]
                for name in runs.values("data")
            ]
        )
        fixed = [rate != "auto" for rate in rates]
        below = 100 * (table - table[:, fixed].max(axis=1, keepdims=True))
        rows = zip(rates, below.T, strict=True)
        panels[optimizer] = {str(rate): {"a set": [*each]} for rate, each in rows}
    draw_dots(
        path,
        panels,
        "points below the set's best rate, twelve sets",
        seeds=True,
        reference=0,
        ours=lambda rate: rate == "auto",
    )


# ---- CGES ----------------------------------------------------------------------


@chart
def selection(path: Path) -> None:
    """Ways to select features: accuracy, and the planted features found."""
    runs = runs_of("selection")
    real = [name for name in runs.values("data") if name not in ways.MADE]
    on_real, on_made = {}, {}
    for way in [w for w in [*ways.WAYS, ways.L1, ways.ALL] if runs.select(way=w)]:
        shares = ways.SHARES if way in ways.WAYS else (None,)
        series = {}
        for entry, share in enumerate(shares):
            means = [ways.mean(runs, "accuracy", entry, data=d, way=way) for d in real]
            name = f"{share:.0%} of the features" if share else "all, or as it likes"
            series[name] = percent(np.mean(means))
        on_real[way] = series
        if way in ways.WAYS:
            on_made[way] = {
                d: percent(ways.mean(runs, "right", 0, data=d, way=way))
                for d in ways.MADE
            }
    panels = {
        "accuracy, mean of seven tables": on_real,
        "planted features among the best ones": on_made,
    }
    draw_dots(path, panels, "per cent", sharex=False)


@chart
def pruning(path: Path) -> None:
    """Pruned networks beside torch's recipe."""
    runs = runs_of("pruning_value")
    rows = {}
    for network, density in product(NETWORKS, DENSITIES):
        scores = {
            name: {
                row["seed"]: row["accuracy"]
                for row in runs.select(
                    on="test",
                    network=network,
                    contestant=name,
                    density=density,
                    params=tuned(runs, network, name),
                )
            }
            for name in SETTINGS
        }
        seeds = sorted(set.intersection(*(set(each) for each in scores.values())))
        rows[f"{network}, {density:.0%} left"] = {
            name: [scores[name][seed] - scores["torch"][seed] for seed in seeds]
            for name in SETTINGS
            if name != "torch"
        }
    draw_dots(path, {"": rows}, "points above torch's recipe", reference=0)


@chart
def wide(path: Path) -> None:
    """Wide real tables."""
    runs = runs_of("wide")
    rows = {}
    for name, (n_rows, n_features) in tables.complete(runs).items():
        rows[f"{name}, {n_rows:,} x {n_features:,}"] = {
            title: percent(runs.mean("accuracy", data=name, model=model))
            for model, title in (
                ("cv", "CGESClassifierCV"),
                ("cges", "CGESClassifier"),
                ("l2", "L2 logistic regression"),
                ("plain", "plain network"),
            )
        }
    draw_dots(path, {"": rows}, "held-out accuracy, %")


@chart
def targets(path: Path) -> None:
    """Networks trained to a size, beside dense ones of that size."""
    runs = runs_of("targets")
    panels = {}
    for data, net in dict.fromkeys((row["data"], row["net"]) for row in runs.rows):
        of = {"data": data, "net": net}
        names = "CGES with a target", "dense, as small", "the plain net"
        plain = accuracies(runs.select(**of, target=""))
        rows = {"whole": dict(zip(names, ([], [], plain), strict=True))}
        for row in runs.select(**of, seed=0):
            if row["target"]:
                key = of | {"target": row["target"], "asked": row["asked"]}
                name = row["target"].removeprefix("target_").replace("_", "-")
                rows[f"{name} {row['asked']:g}"] = {
                    names[0]: accuracies(runs.select(**key)),
                    names[1]: accuracies(runs.select(**key), "dense"),
                }
        panels[f"{data}: {net}"] = rows
    draw_dots(path, panels, "held-out accuracy, %", sharex=False)


def accuracies(runs: list[Any], figure: str = "accuracy") -> list[float]:
    """Return a figure of runs in per cent."""
    return percent([row[figure] for row in runs])


@chart
def path_order(path: Path) -> None:
    """Paths of strengths, from weak to strong and back."""
    names = {"increasing": "weak to strong", "fresh": "each anew"}
    names["decreasing"] = "strong to weak"
    panels = {}
    for net, found in results_of("cges_path_order")["accuracy, left"].items():
        means = {name: np.array(found[order]) for order, name in names.items()}
        panels[net] = {n: (percent(m[1]), percent(m[0])) for n, m in means.items()}
    draw_lines(path, panels, "parameters left, %", "accuracy, %", log=True)


@chart
def training_cost(path: Path) -> None:
    """Time of an epoch by that of a bare loop."""
    rows: dict[str, Any] = {}
    for data, found in results_of("training")["results"].items():
        for name, row in found.items():
            rows.setdefault(name, {})[data] = [row["of_bare_loop"]]
    draw_dots(
        path, {"": rows}, "time of an epoch, by that of a bare torch loop", reference=1
    )


@chart
def thesis(path: Path) -> None:
    """Draw accuracy over size, for the network of the thesis on all of MNIST."""
    draw_thesis(path, "cges_mnist")


@chart
def thesis_small(path: Path) -> None:
    """Draw the same for the setting for a CPU, over all strengths."""
    draw_thesis(path, "cges_mnist_small")


def draw_thesis(path: Path, name: str) -> None:
    records = results_of(name)
    panels: dict[str, Any] = {}
    figures = {"weights that are not zero": "parameters", "compacted": "sizes"}
    for title, figure in figures.items():
        lines: dict[str, Any] = {}
        keys = [(r["penalty"], r["target_density"], r["alpha"]) for r in records]
        for key in sorted(dict.fromkeys(keys), key=lambda key: key[0] != "CGES"):
            rows = [r for r, own in zip(records, keys, strict=True) if own == key]
            left = [
                r["parameters"]
                if figure == "parameters"
                else r["sizes"]["compact_parameters"]
                for r in rows
            ]
            line = lines.setdefault(key[0] + (", pruned" if key[1] else ""), ([], []))
            line[0].append(100 * np.mean(left))
            line[1].append(100 * np.mean([r["accuracy"] for r in rows]))
        panels[title] = lines
    draw_lines(path, panels, "parameters, % of the whole", "accuracy, %", log=True)


# ---- Blockout ------------------------------------------------------------------


@chart
def blockout_cost(path: Path) -> None:
    """Time and memory of a training step."""
    results = results_of("blockout_speed")["results"]
    shown = ("blockout", "linear", "blockout, fixed", "blockout, soft")
    shown = (*shown, "blockout, plain autograd")
    panels = {
        title: {
            size: {name: [found[name][figure]] for name in shown}
            for size, found in results.items()
        }
        for title, figure in (
            ("time, by that of linear + dropout", "of_dropout"),
            ("memory, in matrices as large as the weight", "matrices_held"),
        )
    }
    draw_dots(path, panels, "", sharex=False)


@chart
def blockout_cifar(path: Path) -> None:
    """Draw the comparison of the paper, in two settings for a CPU."""
    settings = {"alone on pixels": "pixels", "behind convolutions": "small"}
    rows: dict[str, Any] = {}
    for title, name in settings.items():
        for record in results_of(f"blockout_{name}")["records"]:
            series = rows.setdefault(record["method"], {}).setdefault(title, [])
            series.append(100 * record["test_accuracy"][-1])
    draw_dots(path, {"": rows}, "test accuracy after the last epoch, %")


@chart
def blockout_planted(path: Path) -> None:
    """Planted superclasses that are found."""
    rows = {
        name: {"a seed": [each["profile"] for each in found]}
        for name, found in results_of("blockout_planted").items()
    }
    draw_dots(
        path,
        {"": rows},
        "adjusted Rand index of the groups",
        seeds=True,
        ours=lambda name: "priced" in name,
    )


@chart
def blockout_hardening(path: Path) -> None:
    """Accuracy of hardened nets over their multiply-adds."""
    results = results_of("blockout_hardening")
    lines = {}
    for name, found in results.items():
        if name == "plain net":
            continue
        points = [
            [np.mean([100 * run["rows"][at][key] for run in found]) for at in AT]
            for key in ("cost", "folded")
        ]
        good = [number for number, each in enumerate(points[1]) if each > 85]
        lines[name] = tuple([each[number] for number in good] for each in points)
    lines["plain net"] = ([100.0], percent(np.mean(results["plain net"])))
    draw_lines(
        path,
        {"": lines},
        "multiply-adds of the blocks, % of the dense net's",
        "accuracy, %",
        log=True,
        height=3.4,
    )


AT = ("0.3", "0.4", "0.5", "0.7")


@chart
def blockout_branches(path: Path) -> None:
    """Time of the merged branches by that of the dense net."""
    panels: dict[str, Any] = {}
    for row in results_of("blockout_branches")["rows"]:
        rows = panels.setdefault(f"{row['nodes']} nodes a layer", {})
        name = f"{row['memberships']} ({row['multiply_adds']:.0%})"
        series = rows.setdefault(name, {})
        series[f"batch of {row['batch']}"] = [row["ratio_merged"]]
    draw_dots(path, panels, "time, by the dense net's", reference=1, log=True)


# ---- DropCluster ---------------------------------------------------------------


@chart
def dropcluster_small(path: Path) -> None:
    """Ten classes of CIFAR-100: each regularizer at its rates."""
    runs = runs_of("dropcluster_small")
    panels: dict[str, Any] = {}
    names = ["none", "dropcluster", "dropout", "spatial", "dropblock"]
    names += ["stochastic_depth"]
    for row in sorted(
        runs.rows, key=lambda row: (names.index(row["method"]), row["rate"])
    ):
        title = "all images" if row["fraction"] == 1 else "20 % of the images"
        name = row["method"].replace("_", " ")
        name += f", {row['rate']:g}" if row["rate"] else ""
        series = panels.setdefault(title, {}).setdefault(name, {"a seed": []})
        series["a seed"].append(row["top1"])
    draw_dots(
        path,
        panels,
        "top-1 accuracy, %",
        sharex=False,
        seeds=True,
        ours=lambda name: name.startswith("dropcluster"),
    )


@chart
def dropping(path: Path) -> None:
    """Accuracy beside weight decay, and log loss, where a network overfits."""
    runs = runs_of("dropping")
    names = {"one pass": "one pass", "draws": "mean of 20 draws"}
    panels: dict[str, Any] = {}
    for data in dict.fromkeys(row["set"] for row in runs.select(kind="test")):
        found = runs.select(kind="test", set=data)
        plain = {r["seed"]: r for r in found if r["method"] == "weight decay"}
        above = panels.setdefault(f"{data}: points above weight decay", {})
        losses = panels.setdefault(f"{data}: log loss", {})
        for row in found:
            for key, name in names.items():
                loss = losses.setdefault(row["method"], {}).setdefault(name, [])
                loss.append(row[key]["log loss"])
                if row["method"] != "weight decay":
                    gain = row[key]["accuracy"]
                    gain -= plain[row["seed"]]["one pass"]["accuracy"]
                    series = above.setdefault(row["method"], {}).setdefault(name, [])
                    series.append(100 * gain)
    draw_dots(path, panels, "", sharex=False)


@chart
def dropcluster_cost(path: Path) -> None:
    """Milliseconds of the layers."""
    seconds = results_of("dropcluster_speed")["seconds"]
    rows = {
        layer: {
            f"maps of {maps.replace('x', ' x ')}": [1e3 * found[layer]["both"]]
            for maps, found in seconds.items()
        }
        for layer in seconds["16x16"]
    }
    label_x = "milliseconds, forward and backward"
    draw_dots(path, {"": rows}, label_x, log=True)


# ---- self-informed -------------------------------------------------------------


@chart
def self_informed(path: Path) -> None:
    """CIFAR-100 with heads, beside their controls."""
    records = results_of("self_informed_small")
    panels: dict[str, Any] = {}
    for key in sorted(records, key=lambda key: TASKS.index(key.split("/")[0])):
        record, (task, seed, variant) = records[key], key.split("/")
        gain = 100 * (record["map"] - records[f"{task}/{seed}/base"]["map"])
        if variant != "base":
            rows = panels.setdefault(task, {})
            rows.setdefault(variant, {"a seed": []})["a seed"].append(gain)
    draw_dots(
        path,
        panels,
        "gain in mAP@5 over the base, points",
        reference=0,
        seeds=True,
        ours=lambda name: name in ("confusions", "co-detections"),
    )


@chart
def self_informed_controls(path: Path) -> None:
    """Draw the gain of heads over each control."""
    panels: dict[str, Any] = {}
    for row in runs_of("self_informed_controls").rows:
        name = f"{'hidden layer' if row['hidden'] else 'none'}, {row['budget']:.0%}"
        name += ", as in the paper" if row.get("fresh") else ""
        series = panels.setdefault(row["task"], {}).setdefault(name, {})
        ours, *others = row["scores"]
        for control, score in zip(row["names"][1:], others, strict=True):
            series.setdefault(f"over {control}", []).append(100 * (ours - score))
    draw_dots(path, panels, "gain of the heads, points", reference=0)


@chart
def self_informed_confusions(path: Path) -> None:
    """Folds and held-out samples: accuracy minus that without heads."""
    runs = runs_of("self_informed_cv")
    plain = {(r["set"], r["seed"]): r["accuracy"] for r in runs.select(way="no heads")}
    panels: dict[str, Any] = {}
    for row in sorted(runs.rows, key=lambda row: [*N_TRAIN].index(row["set"])):
        if row["way"] != "no heads":
            rows = panels.setdefault(row["set"], {}).setdefault(row["way"], {"": []})
            gain = row["accuracy"] - plain[row["set"], row["seed"]]
            rows[""].append(100 * gain)
    draw_dots(
        path, panels, "accuracy above the network without heads, points", reference=0
    )


@chart
def rena(path: Path) -> None:
    """Time and explained variance of clusters of pixels."""
    cases = results_of("rena")["cases"]
    names = {
        "ours, core": "rena",
        "torch, core": "rena without numba",
        "nilearn, core": "nilearn",
        "Ward": "Ward",
    }
    times = {
        case: {n: [1e3 * found["seconds"][key]] for key, n in names.items()}
        for case, found in cases.items()
    }
    draw_dots(path, {"": times}, "milliseconds", log=True)


@chart
def rena_variance(path: Path) -> None:
    """Explained variance of clusters of pixels."""
    cases = results_of("rena")["cases"]
    names = {"ours, core": "rena", "nilearn, core": "nilearn", "Ward": "Ward"}
    rows = {
        case: {n: found["explained_variance"][key] for key, n in names.items()}
        for case, found in cases.items()
    }
    draw_dots(path, {"": rows}, "explained variance")


@chart
def reductions(path: Path) -> None:
    """Accuracy on reduced images over the time of the reduction."""
    lines: dict[str, Any] = {}
    for key, found in results_of("pieces")["reductions"].items():
        x, y = lines.setdefault(key.split()[0], ([], []))
        x.append(int(key.split()[1]))
        y.append(100 * found["accuracy"])
    draw_lines(path, {"": lines}, "features left", "accuracy, %", log=True)


@chart
def reduction_times(path: Path) -> None:
    """Time of the reduction."""
    rows: dict[str, Any] = {}
    for key, found in results_of("pieces")["reductions"].items():
        name, n_features = key.split()
        row = rows.setdefault(f"{n_features} features", {})
        row[name] = [1e3 * found["fit_seconds"]]
    draw_dots(path, {"": rows}, "milliseconds of a fit", log=True)


@chart
def partitioner_top_k(path: Path) -> None:
    """Agreement with planted groups over the number of classes detected."""
    panels: dict[str, Any] = {}
    for row in results_of("partitioner_top_k")["rows"]:
        name = f"{row['n_classes']:,} classes"
        x, y = panels.setdefault(row["source"], {}).setdefault(name, ([], []))
        x.append(row["top_k"])
        y.append(row["mean_ari"])
    names = {"confusion": "confusions", "codetection": "co-detections"}
    panels = {names[source]: lines for source, lines in panels.items()}
    draw_lines(path, panels, "classes detected in a sample, K", "agreement", log=True)


@chart
def partitioner_speed(path: Path) -> None:
    """Time of the grouping by that of SpectralClustering."""
    rows = {
        f"{row['n_classes']:,}, {row['confusions']}": {
            "grouping": [row["ratio"]],
            "with forming B": [row["ratio_with_forming_B"]],
        }
        for row in results_of("partitioner_compare")["rows"]
    }
    label_x = "times as fast as SpectralClustering"
    draw_dots(path, {"": rows}, label_x, reference=1, log=True)


# ---- compaction and searches ---------------------------------------------------


@chart
def compaction(path: Path) -> None:
    """Time of compacted networks over their operations."""
    lines = {
        name: tuple(
            percent([row[figure] for row in found.values()])
            for figure in ("flops", "of_dense")
        )
        for name, found in results_of("compaction")["results"].items()
    }
    draw_lines(path, {"": lines}, "FLOPs left, %", "time left, %", height=3.4)


@chart
def size(path: Path) -> None:
    """Compacted networks beside rivals, on the same splits."""
    runs = runs_of("size")
    rows = {}
    for data, kind in sizes.N_TRAIN:
        timed = runs.select(data=data, kind=kind, role="latencies")
        found = [sizes.nets(runs, data, kind, each["seed"]) for each in timed]
        rows[f"{data}, {kind}"] = {
            f"minus {name}": [
                100 * (each["compacted"]["test"] - each[rival]["test"])
                for each in found
            ]
            for rival, name in (
                ("as small", "a dense net as small"),
                ("its widths", "one of its widths"),
                ("whole", "the whole net"),
            )
        }
    draw_dots(path, {"": rows}, "accuracy of the compacted net, points", reference=0)


@chart
def search(path: Path) -> None:
    """Stacked searches beside fits one by one."""
    rows = {}
    for name, found in results_of("search").items():
        if "seconds" in found:
            stacked, *others = found["seconds"].values()
            _, *names = found["seconds"]
            pairs = zip(names, others, strict=True)
            rows[name] = {f"than {n}": [each / stacked] for n, each in pairs}
    draw_dots(path, {"": rows}, "times as fast", reference=1)


@chart
def scaling(path: Path) -> None:
    """Processor seconds of each piece over the size of its data."""
    panels: dict[str, Any] = {
        f"over {axis}": {} for axis in ("rows", "features", "classes", "clusters")
    }
    for row in sorted(runs_of("scaling").rows, key=lambda row: row["size"]):
        if row["axis"] != "processes":
            piece = row["piece"].removeprefix("epoch, ")
            name = piece if piece == "grouping, 20 groups" else piece.split(",")[0]
            lines = panels[f"over {row['axis']}"]
            x, y = lines.setdefault(name, ([], []))
            x.append(row["size"])
            y.append(row["seconds"])
    draw_lines(path, panels, "", "seconds", log=True, logy=True, sharex=False)


@chart
def members(path: Path) -> None:
    """One network, and eight whose outputs are averaged."""
    runs = runs_of("members")
    rows = {}
    for data, model in product(runs.values("data"), runs.values("model")):
        found = runs.select(data=data, model=model)
        rows[f"{data}, {'plain' if model == 'plain' else 'CGESClassifier'}"] = {
            "eight networks": percent(np.mean([r["together"][0] for r in found])),
            "one network": percent(np.mean([r["alone"][0] for r in found])),
        }
    draw_dots(path, {"": rows}, "held-out accuracy, %")


@chart
def together(path: Path) -> None:
    """Networks trained as one."""
    names = {
        "members": "8 members, by one network",
        "CGES members": "the same with CGES",
        "seeds": "10 seeds x 5 folds, one by one",
        "cv": "CGESClassifierCV, one by one",
        "wide cv": "the same on 100 x 2,000",
    }
    results = results_of("search")
    rows = {
        name: {"": [results[key]["as one"] / results[key]["other"]]}
        for key, name in names.items()
    }
    draw_dots(path, {"": rows}, "time as one, by that of the other", reference=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(CHARTS)}")
    FOLDER.mkdir(exist_ok=True)
    for name in parser.parse_args().names or CHARTS:
        CHARTS[name](FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
