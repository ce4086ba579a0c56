"""Measure which way a warm-started path of strengths should go.

Digits, a perceptron and a convolutional net, means over seeds: accuracy on held-out
samples and share of parameters left at each strength, from weak to strong, from strong
to weak, and each strength from fresh weights, with the same number of epochs each.

Run ``python -m benchmarks.reproduce.cges_path_order`` (two minutes); it writes its
figures and docs/cges_path_order.inc.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from benchmarks.value.section import DOCS, RESULTS, write_page
from sklearn_structreg import CGESClassifier
from sklearn_structreg.cges import cges_path

ALPHAS = [0.3, 1.0, 3.0, 10.0, 20.0]
NETS = {"MLP": (None, 20), "ConvNet": ((1, 8, 8), 10)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    found, lines = {}, []
    for name, (image_shape, max_epochs) in NETS.items():
        figures: dict[str, list[np.ndarray]] = {}
        for seed in range(arguments.seeds):
            split = train_test_split(X, y, test_size=0.4, random_state=seed)
            X_train, X_test, y_train, y_test = split
            scaler = StandardScaler().fit(X_train)
            X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
            model = CGESClassifier(
                image_shape=image_shape, max_epochs=max_epochs, random_state=seed
            )
            for order in ("increasing", "decreasing"):
                path = cges_path(
                    model, X_train, y_train, X_test, y_test, alphas=ALPHAS, order=order
                )
                rows = np.stack([path.scores, path.parameters])
                figures.setdefault(order, []).append(rows)
            fresh = [
                clone(model).set_params(alpha=alpha).fit(X_train, y_train)
                for alpha in ALPHAS
            ]
            rows = [
                [m.score(X_test, y_test), m.n_nonzero_parameters_ / m.n_parameters_]
                for m in fresh
            ]
            figures.setdefault("fresh", []).append(np.transpose(rows))
        lines += ["", f"{name}: accuracy (% of parameters left)"]
        lines.append(f"{'alpha':>8}" + "".join(f"{order:>18}" for order in figures))
        means = {order: np.mean(rows, axis=0) for order, rows in figures.items()}
        for place, alpha in enumerate(ALPHAS):
            pairs = [mean[:, place] for mean in means.values()]
            cells = [f"{accuracy:.4f} ({100 * left:4.1f})" for accuracy, left in pairs]
            lines.append(f"{alpha:>8g}" + "".join(f"{cell:>18}" for cell in cells))
        found[name] = {order: mean.tolist() for order, mean in means.items()}
    print("\n".join(lines))
    text = json.dumps({"alphas": ALPHAS, "accuracy, left": found}, indent=1)
    (RESULTS / "cges_path_order.json").write_text(text + "\n")
    write_page(DOCS / "cges_path_order.inc", "\n".join(lines[1:]))


if __name__ == "__main__":
    main()
