"""
Classes of many samples, and of few
===================================

Where classes have from a hundred samples down to six, a network leaves the rare ones to
the frequent ones that look like them. Two remedies: weights, by which each class counts
as much as any other, and :class:`~sklearn_structreg.SelfInformedClassifier`, which adds
specialist heads for classes that are confused. Here the former pays and the latter
does not.
"""

# %%
# Digits with a long tail
# -----------------------
# Each time another digit is the rare one. Of each class fifty further images are for
# the test, so that its mean is over classes and not over frequent ones.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import recall_score

from sklearn_structreg import SelfInformedClassifier, StructuredClassifier

torch.set_num_threads(1)  # the networks are small
X, y = load_digits(return_X_y=True)
sizes = np.geomspace(120, 6, 10).astype(int)
n_draws = 5


def draw(rng):
    """Return rows to train on and to test on, and the digits by their sizes."""
    train, test, digits = [], [], rng.permutation(10)
    for digit, size in zip(digits, sizes, strict=True):
        rows = rng.permutation(np.flatnonzero(y == digit))
        train.extend(rows[:size])
        test.extend(rows[-50:])
    return train, test, digits


# %%
# Four networks
# -------------
# ``fresh_classifier=True`` with as many epochs for the heads as for the base trains
# them as the paper does; the default is more cautious. ``budget=1.0`` lets the heads
# cost as much as the network itself.

heads = {
    "fresh_classifier": True,
    "head_epochs": 1.0,
    "budget": 1.0,
    "max_epochs": 30,
}
models = {
    "plain network": StructuredClassifier(max_epochs=30),
    "with heads": SelfInformedClassifier(**heads),
    "with weights": StructuredClassifier(max_epochs=30, class_weight="balanced"),
    "with both": SelfInformedClassifier(**heads, class_weight="balanced"),
}
recalls = {name: [] for name in models}
rng = np.random.default_rng(0)
for number in range(n_draws):
    train, test, digits = draw(rng)
    for name, model in models.items():
        model.set_params(random_state=number).fit(X[train], y[train])
        recall = recall_score(
            y[test], model.predict(X[test]), labels=digits, average=None
        )
        recalls[name].append(100 * recall)

plain = np.mean(recalls["plain network"], axis=1)
for name, values in recalls.items():
    gain = np.mean(values, axis=1) - plain
    error = gain.std(ddof=1) / np.sqrt(n_draws)
    rare = np.mean(values, axis=0)[-3:].mean()
    print(
        f"{name:>13}: {np.mean(values):.1f} % right over all classes "
        f"({gain.mean():+.1f} ± {error:.1f}), {rare:.1f} % of the three rarest"
    )

# %%
# Class by class
# --------------
# Weights cost the frequent classes next to nothing. Heads read features of the
# network, which saw as few images of the rare digits; on five draws they change
# nothing that could be told from chance. On the features of another, larger data set,
# and a network without a hidden layer, they do gain: see :doc:`/self_informed`, where
# all of this is measured beside its controls.

figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for (name, values), style in zip(recalls.items(), ("-", "--") * 2, strict=True):
    color = "C1" if name in ("with weights", "with both") else "C0"
    ax.plot(sizes, np.mean(values, axis=0), style, marker="o", color=color, label=name)
ax.set(xscale="log", xlabel="training images of the class", ylabel="recall (%)")
ax.set_xticks([6, 10, 20, 40, 80, 120], labels=["6", "10", "20", "40", "80", "120"])
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()
