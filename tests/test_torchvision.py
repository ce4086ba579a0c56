"""torchvision's and timm's networks as `module`, where these packages work."""

import importlib

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_structreg import (
    BlockoutClassifier,
    CGESClassifier,
    DropClusterClassifier,
    SelfInformedClassifier,
    StructuredClassifier,
)
from sklearn_structreg.core import Training

FAST = {"max_epochs": 1, "batch_size": 16, "learning_rate": 0.01, "random_state": 0}


def imported(name):
    """Import a package; a build for another torch fails in its own ways."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"{name} cannot be imported: {error}")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    y = np.arange(32) % 4
    X = rng.standard_normal((32, 3, 32, 32)) + y[:, None, None, None]
    return X.astype(np.float32), y


def resnet():
    return imported("torchvision.models").resnet18(num_classes=4)


def transformer():
    kind = imported("torchvision.models").VisionTransformer
    return kind(32, 8, 2, 2, 32, 64, num_classes=4)


def timm_resnet():
    return imported("timm").create_model("resnet18", num_classes=4)


def timm_transformer():
    return imported("timm").create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=4
    )


NETWORKS = {
    "resnet18": resnet,
    "transformer": transformer,
    "timm, resnet18": timm_resnet,
    "timm, transformer": timm_transformer,
}
ESTIMATORS = {
    "plain": StructuredClassifier,
    "CGES": CGESClassifier,
    "Blockout": lambda **p: BlockoutClassifier(layers="all", **p),
    "DropCluster": DropClusterClassifier,
    "self-informed": lambda **p: SelfInformedClassifier(n_clusters=2, cv=None, **p),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:Only layers that run once")
@pytest.mark.parametrize("kind", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_every_estimator_trains_and_compacts_it(images, make, kind):
    X, y = images
    torch.manual_seed(0)
    network = make()
    model = kind(module=network, standardize=True, **FAST).fit(X, y)
    assert model.predict_proba(X).shape == (32, 4)
    plain = model.simplified_module()
    with torch.no_grad():
        outputs = plain.eval()(torch.from_numpy(X)).double()
    expected = model.decision_function(X)
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)


def test_transforms_augment_mini_batches(images):
    v2 = imported("torchvision.transforms.v2")
    X, y = images
    augment = v2.Compose([v2.RandomCrop(32, padding=2), v2.RandomHorizontalFlip()])
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))
    fits = [
        StructuredClassifier(net, training=Training(augment=augment), **FAST)
        .fit(X, y)
        .predict_proba(X)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*fits)
