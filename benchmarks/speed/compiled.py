"""How fast a training is with `Training(compile=True)`, beside one without.

A perceptron and a small convolutional net, each with its default parameters. An epoch
is the time of a fit less that of a shorter one, over the epochs between them; the
compilation is the time of a fit with it less that of one without, less the gain of its
epochs. The times are processor time, also that of the compiler's processes.

Run ``python -m benchmarks.speed.compiled`` (some minutes).
"""

from __future__ import annotations

import argparse
import json
import resource
import warnings
from pathlib import Path

import numpy as np
import torch
import torch._inductor.config
from sklearn.exceptions import ConvergenceWarning

from sklearn_structreg.core import StructuredClassifier, Training

RESULTS = Path(__file__).parents[1] / "results" / "compiled.json"
NETWORKS = {
    "perceptron, 784 features": (784, {"hidden_layer_sizes": (256, 128)}),
    "convolutions, 16 x 16": (256, {"image_shape": (16, 16)}),
}


def processor_time() -> float:
    """Return the seconds of this process and of those that it has ended."""
    found = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


def seconds(
    X: np.ndarray, y: np.ndarray, n_epochs: int, *, compiled: bool, **params: object
) -> float:
    """Time a fit of an estimator as it comes."""
    model = StructuredClassifier(
        max_epochs=n_epochs,
        device="cpu",
        training=Training(compile=compiled),
        random_state=0,
        **params,
    )
    torch.compiler.reset()
    start = processor_time()
    model.fit(X, y)
    return processor_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch._inductor.config.force_disable_caches = True  # of earlier compilations
    torch._inductor.config.compile_threads = 1  # others' time counts at their end
    warnings.simplefilter("ignore", ConvergenceWarning)  # the labels are random
    n_rows, n_epochs = arguments.rows, arguments.epochs
    rng, found = np.random.default_rng(0), {}
    for name, (n_features, params) in NETWORKS.items():
        X = rng.standard_normal((n_rows, n_features), np.float32)
        y = rng.integers(10, size=n_rows)
        seconds(X[:200], y[:200], 1, compiled=True, **params)  # warm up
        once, many = np.array(
            [
                [seconds(X, y, n, compiled=c, **params) for c in (False, True)]
                for n in (1, 1 + n_epochs)
            ]
        )
        plain, own = (many - once) / n_epochs
        compilation = once[1] - once[0] + plain - own
        found[name] = {
            "seconds per epoch": plain,
            "compiled": own,
            "of it": own / plain,
            "compilation": compilation,
        }
        print(name, {key: round(float(value), 2) for key, value in found[name].items()})
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
