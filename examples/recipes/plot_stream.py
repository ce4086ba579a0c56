"""
A stream: learning from chunks, and from files larger than the memory
=====================================================================

``partial_fit`` trains for one epoch on the rows that it is given and keeps the state of
the optimizer, so that a network follows a stream. For a file that does not fit into
memory, an ``IterableDataset`` goes to ``fit``, which reads it once per epoch.
"""

import csv
import tempfile
from itertools import islice
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import rotate
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch.utils.data import IterableDataset, get_worker_info

from sklearn_structreg import StructuredClassifier

torch.set_num_threads(1)  # the networks are small

# %%
# A stream that changes
# ---------------------
# A camera that slowly turns: 120 chunks of 100 digits each, upright in the first ones,
# upside down in the last.
X, y = load_digits(return_X_y=True)
images = X.reshape(-1, 8, 8) / 16


def chunks(n_chunks=120, n_rows=100):
    """Yield rows and labels, the images turned further from chunk to chunk."""
    rng = np.random.default_rng(0)
    for angle in np.linspace(0, 180, n_chunks):
        rows = rng.choice(len(images), n_rows, replace=False)
        turned = rotate(images[rows], angle, axes=(1, 2), reshape=False, order=1)
        yield turned.reshape(n_rows, -1), y[rows]


# %%
# Test, then train
# ----------------
# Every chunk is predicted before it is learned. The first call names all classes. One
# epoch over 100 rows is few steps, hence the small batches. Pixels have a scale of
# their own, so that no layer for raw data is needed, and here it would do harm: mean
# and scale come from the rows of the first call, in which the corners are next to
# constant. For features without a scale of their own a ``StandardScaler`` may learn on
# from chunk to chunk.


class Scaled:
    """A network behind the mean and scale of all rows so far."""

    def __init__(self, net):
        self.scaler, self.net = StandardScaler(), net

    def partial_fit(self, samples, labels, classes):
        """Let both learn on."""
        samples = self.scaler.partial_fit(samples).transform(samples)
        self.net.partial_fit(samples, labels, classes=classes)

    def score(self, samples, labels):
        """Return the accuracy."""
        return self.net.score(self.scaler.transform(samples), labels)


net = StructuredClassifier(batch_size=10, standardize=False, random_state=0)
models = {
    "network": net,
    "network, trained on 20 chunks only": clone(net),
    "network, standardized by the first chunk": clone(net).set_params(standardize=True),
    "network, standardized by all chunks so far": Scaled(clone(net)),
    "MLPClassifier": MLPClassifier(batch_size=10, random_state=0),
    "SGDClassifier, linear": SGDClassifier(loss="log_loss", random_state=0),
}
accuracies = {name: [] for name in models}
for number, (samples, labels) in enumerate(chunks()):
    for name, model in models.items():
        if number > 0:
            accuracies[name].append(100 * model.score(samples, labels))
        if number < 20 or "only" not in name:
            model.partial_fit(samples, labels, classes=range(10))

figure, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
for name, values in accuracies.items():
    print(f"{name:>40}: mean accuracy {np.mean(values):.1f} %")
    smooth = np.convolve(values, np.ones(5) / 5, mode="valid")
    ax.plot(np.arange(len(smooth)) + 3, smooth, label=name)
ax.set(xlabel="chunk", ylabel="accuracy (%), mean of 5 chunks", ylim=(0, 100))
ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
plt.show()

# %%
# A file that is read line by line
# --------------------------------
# An ``IterableDataset`` yields ``(x, label)``; any label will do. Workers, asked for by
# ``Training(loader_params={"num_workers": 2})``, each take their share of the lines.


class Lines(IterableDataset):
    """The rows of a CSV file, a label before the numbers."""

    def __init__(self, path):
        self.path = path

    def __iter__(self):
        """Read the file from its beginning."""
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        with self.path.open(newline="") as file:
            for label, *numbers in islice(csv.reader(file), first, None, step):
                yield np.array(numbers, dtype=np.float32), label


names = np.array(["0", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"])
folder = tempfile.TemporaryDirectory()
paths = Path(folder.name, "train.csv"), Path(folder.name, "test.csv")
order = np.random.default_rng(0).permutation(len(X))
for path, rows in zip(paths, (order[:1300], order[1300:]), strict=True):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names[y[row]], *X[row]] for row in rows)

train, test = map(Lines, paths)
model = StructuredClassifier(max_epochs=20, random_state=0).fit(train)
predicted = model.predict(test)
print(f"accuracy {np.mean(predicted == names[y[order[1300:]]]):.3f}")
print(predicted[:8])

# %%
# The lines come in the order of the file, so that a sorted file must be shuffled
# beforehand. The same rows go to ``partial_fit`` in chunks, such as those of
# ``pandas.read_csv(path, chunksize=1000)``, where one pass is all that there is.
folder.cleanup()
