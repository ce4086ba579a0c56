"""Which classes of CIFAR-100 belong to which superclass.

From A. Krizhevsky, "Learning multiple layers of features from tiny images", technical
report, University of Toronto, 2009, section on the CIFAR-100 data set. The data set's
fine labels number the classes in the alphabetical order of their names.
"""

from __future__ import annotations

import numpy as np

SUPERCLASSES = {
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food containers": "bottle bowl can cup plate",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large carnivores": "bear leopard lion tiger wolf",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-sized mammals": "fox porcupine possum raccoon skunk",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
}
"""The classes of each superclass, their names apart by spaces."""

CLASS_NAMES = sorted(" ".join(SUPERCLASSES.values()).split())
"""The name of each class, by its number."""


def coarse_labels() -> np.ndarray:
    """Return the number of each class's superclass, of shape (100,)."""
    coarse = np.empty(100, dtype=np.int64)
    for number, names in enumerate(SUPERCLASSES.values()):
        coarse[[CLASS_NAMES.index(name) for name in names.split()]] = number
    return coarse
