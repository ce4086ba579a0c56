"""
Structure in images, and its clusters
=====================================

Two questions before dropping or averaging regions of images: is there any structure,
and where? The Spatial Hopkins statistic answers the first, channel by channel; ReNA
answers the second. The images are the two photographs that come with scikit-learn.
"""

# %%
# Patches of two photographs
# --------------------------
#
# Patches of 64 x 64 pixels of both, each colour a channel, and a fourth channel of
# noise with the spread of the first, for comparison.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from sklearn_structreg.dropcluster import (
    HopkinsDisplay,
    ReNAClusterer,
    ReNADisplay,
    SpatialHopkins,
    rena,
)

china, flower = load_sample_images().images
patches = np.concatenate(
    [
        extract_patches_2d(photo, (64, 64), max_patches=100, random_state=0)
        for photo in (china, flower)
    ]
)
patches = patches.transpose(0, 3, 1, 2).astype(np.float32)
rng = np.random.default_rng(0)
noise = rng.normal(patches[:, 0].mean(), patches[:, 0].std(), size=(200, 1, 64, 64))
images = np.concatenate([patches, noise.astype(np.float32)], axis=1)

# %%
# Is there structure?
# -------------------
#
# Towards 1: a pixel is closer to its neighbours than another pixel is to them. The
# noise is at 0.5, the photographs far above, and the bars, from the tenth to the
# ninetieth percentile of the patches, say how much patches differ.

hopkins = SpatialHopkins(random_state=0).fit(images)
display = HopkinsDisplay.from_estimator(hopkins, images)
display.ax_.set_xticks(range(4), ["red", "green", "blue", "noise"])
display.ax_.set_xlabel("")

# %%
# As histograms, one value per patch, for each photograph: the flower is out of focus in
# large parts, and smooth there.

statistic = hopkins.transform(images)
photographs = {"china": statistic[:100, :3].T, "flower": statistic[100:, :3].T}
display = HopkinsDisplay(photographs).plot(kind="histogram")
display.ax_.set_ylabel("patches")

# %%
# Where is it?
# ------------
#
# Regions of one photograph: its three colours are the samples, its pixels the features.

rows = flower[::2, ::2].transpose(2, 0, 1).astype(np.float32)
clusterer = ReNAClusterer(200, image_shape=rows.shape[1:]).fit(rows.reshape(3, -1))
ReNADisplay.from_estimator(clusterer, rows.reshape(3, -1))

# %%
# The means of 200 regions instead of 68,160 pixels, put back in their places:

means = clusterer.transform(rows.reshape(3, -1))
restored = clusterer.inverse_transform(means).reshape(rows.shape)
figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.6), layout="constrained")
for ax, picture, title in zip(
    axes, (rows, restored), ("photograph", "200 region means"), strict=True
):
    ax.imshow(picture.transpose(1, 2, 0).astype(np.uint8))
    ax.set(title=title, xticks=[], yticks=[])
residual = ((rows - restored) ** 2).sum()
total = ((rows - rows.mean(axis=(1, 2), keepdims=True)) ** 2).sum()
print(f"explained variance: {1 - residual / total:.3f}")

# %%
# Channel by channel
# ------------------
#
# On tensors, :func:`~sklearn_structreg.dropcluster.rena` clusters every channel by
# itself, all at once: this is what DropCluster does with feature maps. Patches from
# everywhere have only closeness in common, so the clusters are compact; in the noise
# they mean nothing.

found = rena(torch.from_numpy(images), 15)
ReNADisplay.from_maps(found.labels, images)
plt.show()
