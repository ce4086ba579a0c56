"""
Files: a folder of pictures, and Parquet
========================================

What lies in files goes to ``fit`` as a torch ``Dataset``, which loads one row at a
time: pictures from a folder, decoded by workers, or the rows of a Parquet file.
"""

import io
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.model_selection import GridSearchCV
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from sklearn_structreg import StructuredClassifier
from sklearn_structreg.core import Training, as_rows

torch.set_num_threads(1)  # the networks are small

# %%
# A folder of pictures
# --------------------
# Tiles of two photographs, a temple and a flower: those of the upper two thirds are for
# training, the others for testing.
folder = tempfile.TemporaryDirectory()
root = Path(folder.name)
names = "temple", "flower"
for name, photo in zip(names, load_sample_images().images, strict=True):
    picture = Image.fromarray(photo)
    for part, rows in ("train", range(0, 256, 16)), ("test", range(288, 416, 32)):
        (root / part / name).mkdir(parents=True)
        for number, top in enumerate(rows):
            for left in range(0, 640, 16):
                tile = picture.crop((left, top, left + 16, top + 16))
                tile.save(root / part / name / f"{number}-{left}.png")


class Pictures(Dataset):
    """The PNG files of a folder; the name of the folder inside is the label."""

    def __init__(self, folder):
        self.paths = sorted(folder.glob("*/*.png"))
        self.targets = [path.parent.name for path in self.paths]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        """Decode a picture."""
        return Image.open(self.paths[number]), self.targets[number]


# %%
# The attribute ``targets`` saves reading all pictures once for their labels. Two worker
# processes decode them beside the training; in a script of your own for Windows or
# macOS, put the dataset into a module and the call of ``fit`` under
# ``if __name__ == "__main__":``.
train, test = Pictures(root / "train"), Pictures(root / "test")
print(f"{len(train)} pictures for training, {len(test)} for testing")
model = StructuredClassifier(
    max_epochs=8,
    batch_size=64,
    training=Training(loader_params={"num_workers": 2}),
    random_state=0,
).fit(train)
print(f"accuracy {model.score(test, test.targets):.3f}")

figure, axes = plt.subplots(2, 12, figsize=(8, 1.6), layout="constrained")
shown = np.random.default_rng(0).choice(len(test), 24, replace=False)
predicted = model.predict(test)[shown]
for ax, number, label in zip(axes.flat, shown, predicted, strict=True):
    ax.imshow(test[number][0])
    color = "black" if label == test.targets[number] else "tab:red"
    ax.set_title(label, fontsize=8, color=color)
    ax.axis("off")
plt.show()

# %%
# A search over a dataset
# -----------------------
# ``as_rows`` gives scikit-learn a list that it can take parts of, without loading any.
rows = as_rows(train)
search = GridSearchCV(
    model.set_params(max_epochs=2), {"learning_rate": [0.005, 0.05]}, cv=2
)
search.fit(rows, rows.targets)
print(search.best_params_)

# %%
# A Parquet file
# --------------
# A file is read by its row groups, in order, by an ``IterableDataset``. Items may be
# dicts with one of the usual names for the sample and the label. The pictures are
# bytes, as in the files of Hugging Face ``datasets``, whose own datasets are map-style
# and go to ``fit`` as they are.
for part in "train", "test":
    dataset = Pictures(root / part)
    order = np.random.default_rng(0).permutation(len(dataset))
    table = pa.table(
        {
            "image": [dataset.paths[number].read_bytes() for number in order],
            "label": [dataset.targets[number] for number in order],
        }
    )
    pq.write_table(table, root / f"{part}.parquet", row_group_size=100)


class Parquet(IterableDataset):
    """The rows of a Parquet file; each worker reads row groups of its own."""

    def __init__(self, path):
        self.path = path

    def __iter__(self):
        """Read the file from its beginning."""
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        with pq.ParquetFile(self.path) as file:
            for group in range(first, file.num_row_groups, step):
                for row in file.read_row_group(group).to_pylist():
                    image = Image.open(io.BytesIO(row["image"]))
                    yield {"image": image, "label": row["label"]}


model = StructuredClassifier(max_epochs=8, batch_size=64, random_state=0)
model.fit(Parquet(root / "train.parquet"))
predicted = model.predict(Parquet(root / "test.parquet"))
labels = pq.read_table(root / "test.parquet")["label"].to_numpy()
print(f"accuracy {np.mean(predicted == labels):.3f}")
folder.cleanup()
