"""
Going on after a kill
=====================

A night's training ends early: the machine restarts, the job is over its time, memory
runs out. With ``checkpoint=FOLDER`` the state of the training is on disk after every
epoch, and the same ``fit``, called again, goes on from there. It ends with the very
network that it would have had without the kill, to the last bit. Here a process is
killed in earnest.
"""

# %%
# The training, as a script
# -------------------------
# The estimator has everything that a training has to remember: momentum, a schedule, a
# penalty that sets weights to zero. ``verbose=1`` prints a line for every epoch.

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

SCRIPT = """
import sys

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_structreg import CGESClassifier

torch.set_num_threads(1)
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, stratify=y, random_state=0
)


def make(**params):
    return CGESClassifier(
        hidden_layer_sizes=(200, 100),
        lr_schedule="cosine",
        max_epochs=30,
        random_state=0,
        **params,
    )


if __name__ == "__main__":
    make(checkpoint=sys.argv[1], verbose=1).fit(X_train, y_train)
"""

place = tempfile.TemporaryDirectory()
folder = Path(place.name, "night")
script = Path(place.name, "train.py")
script.write_text(SCRIPT)

# %%
# The kill
# --------
# On Linux and macOS ``kill`` is a signal that no program can catch. It comes somewhere
# in the epoch after the twelfth.

process = subprocess.Popen(
    [sys.executable, "-u", str(script), str(folder)],
    stdout=subprocess.PIPE,
    text=True,
)
lines = []
for line in process.stdout:
    lines.append(line.rstrip())
    if len(lines) == 14:  # two lines of headings
        process.kill()
        break
process.wait()
process.stdout.close()
print(*lines[-3:], f"exit status {process.returncode}", sep="\n")
print(sorted(path.name for path in folder.iterdir()))

# %%
# The same fit once more
# ----------------------
# In this process now. It begins where the folder ends, and trains the rest. Beside it
# the training that nobody disturbed, without a folder.

sys.path.insert(0, place.name)
from train import X_test, X_train, make, y_test, y_train  # noqa: E402

resumed = make(checkpoint=folder).fit(X_train, y_train)
undisturbed = make().fit(X_train, y_train)
weights = zip(
    resumed.module_.parameters(), undisturbed.module_.parameters(), strict=True
)
same = all(torch.equal(mine, other) for mine, other in weights)
for name, model in ("resumed", resumed), ("undisturbed", undisturbed):
    print(f"{name:>11}: accuracy {model.score(X_test, y_test):.4f}")
print(f"all weights the same, bit for bit: {same}")

# %%
# The history knows no gap
# ------------------------

n_before = int(lines[-1].split()[0])
figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
loss = undisturbed.history_[:, "train_loss"]
epochs = np.arange(1, len(loss) + 1)
ax.plot(epochs, loss, color="0.8", linewidth=7, label="undisturbed")
loss = resumed.history_[:, "train_loss"]
ax.plot(epochs[:n_before], loss[:n_before], color="C0", label="before the kill")
ax.plot(epochs[n_before - 1 :], loss[n_before - 1 :], color="C1", label="after it")
ax.axvline(n_before, color="0.4", linestyle=":")
ax.set(xlabel="epoch", ylabel="training loss", yscale="log")
ax.legend(frameon=False)
place.cleanup()
plt.show()
