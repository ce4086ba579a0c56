"""
Volumes with a mask: parcels of voxels before a classifier
==========================================================

Functional images of the brain have tens of thousands of voxels and a few dozen to a few
hundred volumes, and what differs between two conditions is smooth, weak and in few
places. :class:`~sklearn_structreg.ReNAClusterer` joins neighbouring voxels that vary
together into parcels. What follows has fewer numbers to read, and its weights can be
put back into the volume as a map.
"""

# %%
# Volumes
# -------
# Made up, but with the shape of such images: smooth fluctuations within an ellipsoid,
# and a little white noise. In the second condition three regions are more active.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.feature_extraction.image import grid_to_graph
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_validate
from sklearn.pipeline import make_pipeline

from sklearn_structreg import ReNAClusterer, StructuredClassifier

torch.set_num_threads(1)  # the networks are small
shape, n_volumes = (30, 36, 30), 480
rng = np.random.default_rng(0)
grid = np.indices(shape)
half = (np.array(shape) / 2)[:, None, None, None]
mask = (((grid - half + 0.5) / (half - 1)) ** 2).sum(axis=0) < 1

active = np.zeros(shape)
for center in [(8, 24, 15), (21, 24, 15), (15, 10, 17)]:
    offset = grid - np.array(center)[:, None, None, None]
    active += np.exp(-(offset**2).sum(axis=0) / 18)

condition = np.arange(n_volumes) % 2
volumes = np.outer(condition, active[mask]).astype(np.float32)
for width, strength in [(0, 0.3), (1, 1.0), (2, 0.5)]:
    for volume in volumes:
        noise = rng.standard_normal(shape, dtype=np.float32)
        noise = gaussian_filter(noise, width)[mask]
        volume += strength * noise / noise.std()
print(f"{n_volumes} volumes of {volumes.shape[1]:,} voxels within the mask")

# %%
# The graph
# ---------
# It joins each voxel of the mask with its neighbours in the mask.

graph = grid_to_graph(*shape, mask=mask)
clusterer = ReNAClusterer(1000, connectivity=graph)
parcels = clusterer.fit(volumes[:120]).labels_
n_voxels = np.median(np.bincount(parcels))
print(f"half of the parcels have {n_voxels:.0f} voxels or more")

# %%
# Parcels, or single voxels?
# --------------------------
# Classifiers behind the clusterer and without it. In a pipeline the parcels come from
# the training volumes alone. ``scaling="orthonormal"`` weighs parcels by their sizes,
# which suits the penalty of a logistic regression.

classifiers = {
    "logistic regression": LogisticRegression(max_iter=1000),
    "the same, C=0.001": LogisticRegression(C=0.001, max_iter=1000),
    "network": StructuredClassifier(max_epochs=15, random_state=0),
}
sizes = [100, 300, 1000, 3000]
draws = StratifiedShuffleSplit(4, train_size=120, random_state=0)
accuracy, seconds = {}, {}
for name, classifier in classifiers.items():
    models = [
        make_pipeline(
            ReNAClusterer(size, connectivity=graph, scaling="orthonormal"),
            classifier,
        )
        for size in sizes
    ]
    found = [
        cross_validate(model, volumes, condition, cv=draws)
        for model in [*models, classifier]
    ]
    accuracy[name] = [100 * each["test_score"].mean() for each in found]
    seconds[name] = [np.median(each["fit_time"]) for each in found]
    for size, score, time in zip(
        [*sizes, volumes.shape[1]], accuracy[name], seconds[name], strict=True
    ):
        print(f"{name:>20}, {size:6,} numbers: {score:.1f} %, {time:.2f} s")

# %%
# Parcels are joined without a look at the conditions, and yet a thousand of them say as
# much as fourteen times as many voxels. The network, whose weights are as many as the
# numbers that it reads, is trained in a fraction of the time. A logistic regression at
# its default strength is far better on parcels; at a strength that suits so many
# voxels, no better.

figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for ax, values in zip(panels, (accuracy, seconds), strict=True):
    for name, each in values.items():
        ax.plot([*sizes, volumes.shape[1]], each, marker="o", label=name)
    ax.set(xscale="log", xlabel="parcels", xticks=[*sizes, volumes.shape[1]])
    ax.set_xticklabels([*sizes, "voxels"])
    ax.minorticks_off()
panels[0].set(ylabel="accuracy (%), mean of 4 draws")
panels[1].set(ylabel="seconds a fit (median)", ylim=(0, None))
panels[0].legend(frameon=False, loc="lower center")

# %%
# A map of the weights
# --------------------
# ``inverse_transform`` puts the weights of parcels back on the voxels. Here are the
# parcels and the maps of all volumes, in a horizontal section.

clusterer = ReNAClusterer(1000, connectivity=graph, scaling="orthonormal")
linear = LogisticRegression(max_iter=1000)
linear.fit(clusterer.fit_transform(volumes), condition)
weights = clusterer.inverse_transform(linear.coef_)[0]
of_voxels = LogisticRegression(max_iter=1000).fit(volumes, condition).coef_[0]


def section(values):
    """Return a horizontal section of a volume with values in the mask alone."""
    volume = np.full(shape, np.nan)
    volume[mask] = values
    return volume[:, :, shape[2] // 2].T


figure, panels = plt.subplots(1, 4, figsize=(10, 3.3), layout="constrained")
colours = rng.permutation(clusterer.n_clusters_)[clusterer.labels_]
panels[0].imshow(section(colours), cmap="prism", origin="lower")
maps = active[mask], weights, of_voxels
for ax, values in zip(panels[1:], maps, strict=True):
    limit = np.nanmax(np.abs(section(values)))
    image = ax.imshow(section(values), cmap="RdBu_r", origin="lower")
    image.set_clim(-limit, limit)
titles = "parcels", "active regions", "weights of parcels", "weights of voxels"
for ax, title in zip(panels, titles, strict=True):
    ax.set(title=title, xticks=[], yticks=[])
    ax.set_frame_on(False)
plt.show()
