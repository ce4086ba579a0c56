"""How fast a training is with `Training(compile=True)`, beside one without.

A perceptron and a small convolutional net, with default parameters, each trained once
with and once without. An epoch is the median of those after the first one; the
compilation is the time by which the first one and all before it are longer than that.
The times are processor time, also that of the compiler's processes.

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
from skorch.callbacks import Callback

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


class Moments(Callback):
    """The processor time at the beginning, and at the end of every epoch."""

    def __init__(self) -> None:
        self.moments = [processor_time()]

    def on_epoch_end(self, net: object, **kwargs: object) -> None:
        """Note the time."""
        self.moments.append(processor_time())


def seconds(
    X: np.ndarray, y: np.ndarray, n_epochs: int, *, compiled: bool, **params: object
) -> tuple[float, float]:
    """Return the time of an epoch, and that by which a fit is longer."""
    moments = Moments()
    StructuredClassifier(
        max_epochs=n_epochs,
        device="cpu",
        training=Training(compile=compiled),
        callbacks=[moments],
        random_state=0,
        **params,
    ).fit(X, y)
    first, *others = np.diff(moments.moments)
    epoch = float(np.median(others))
    return epoch, float(first) - epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch._inductor.config.force_disable_caches = True  # of earlier compilations
    torch._inductor.config.compile_threads = 1  # others' time counts at their end
    warnings.simplefilter("ignore", ConvergenceWarning)  # the labels are random
    rng, found = np.random.default_rng(0), {}
    for name, (n_features, params) in NETWORKS.items():
        X = rng.standard_normal((arguments.rows, n_features), np.float32)
        y = rng.integers(10, size=len(X))
        data = X, y, arguments.epochs
        plain, before = seconds(*data, compiled=False, **params)
        own, with_compilation = seconds(*data, compiled=True, **params)
        found[name] = {
            "seconds per epoch": plain,
            "compiled": own,
            "compilation": with_compilation - before,
        }
        print(name, found[name], flush=True)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
