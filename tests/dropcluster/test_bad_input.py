"""Bad input gets one clear sentence, before any work is lost: DropCluster."""

import functools
import warnings

import numpy as np
import pytest
import torch
from bad_input import Case, check, every, settings
from scipy import sparse
from torch import nn

from sklearn_structreg.core import StructuredClassifier, insert_layer
from sklearn_structreg.dropcluster import (
    DropCluster,
    DropCluster1d,
    DropCluster2d,
    DropCluster3d,
    DropClusterClassifier,
    DropClusterDisplay,
    DropClusterRegressor,
    HopkinsDisplay,
    LayerHopkinsDisplay,
    ReNAClusterer,
    ReNADisplay,
    SpatialHopkins,
    feature_maps,
    fold_masks,
    hopkins,
    rena,
    spatial_hopkins,
)

# Fits of one or two epochs, for other purposes than to learn.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(20, 16))
Y = np.arange(20) % 3
IMAGES = X.reshape(20, 1, 4, 4)
BROKEN = np.where(np.arange(16) == 3, np.nan, X)
NET = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))  # fmt: skip
MAPS = torch.from_numpy(IMAGES).float()


def classifier(*args, **params):
    defaults = {"max_epochs": 1, "random_state": 0, "start_epoch": 0}
    return DropClusterClassifier(*args, **(defaults | params))


def fit(model):
    return model.fit(IMAGES, Y)


def attach(regularizer):
    regularizer.check_parameters()
    return regularizer.attach(
        nn.Sequential(nn.Conv2d(1, 2, 3)), torch.zeros(2, 1, 6, 6)
    )


def quietly(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


@functools.cache
def _fitted():
    return quietly(lambda: classifier().fit(IMAGES, Y))


@functools.cache
def _clusterer():
    return ReNAClusterer(4, image_shape=(4, 4)).fit(X)


@functools.cache
def _statistic():
    return SpatialHopkins(image_shape=(2, 8), random_state=0).fit(X)


def fitted():
    return _fitted()


def clusterer():
    return _clusterer()


def statistic():
    return _statistic()


# ---- parameters --------------------------------------------------------------------

NUMBERS = {
    "drop_rate": [1.0, -0.1, np.nan, True, "half", None],
    "n_clusters": [0, -1, 2.5, True, "many", None],
    "start_epoch": [-1, 2.5, True, "late"],
    "update_every": [0, 2.5, True, "often"],
    "layer": [3, nn.ReLU()],
    "unstructured": ["random", 1],
    "hopkins_threshold": [-0.1, 1.1, np.nan, True],
    "rounding": ["up", 1],
}
PARAMETERS = [
    *settings(NUMBERS, DropCluster, attach),
    *(c._replace(name=f"estimator {c.name}") for c in settings(NUMBERS, DropClusterClassifier, fit)),
    *(
        case._replace(name=f"ReNAClusterer {case.name}")
        for case in settings(
            {"n_clusters": [0, 2.5, True, "many", None], "max_iter": [0, -1, 2.5, True], "image_shape": [3], "connectivity": ["grid", 3], "device": [3]},
            ReNAClusterer,
            lambda m: m.fit(X),
        )
    ),
    *(
        case._replace(name=f"SpatialHopkins {case.name}")
        for case in settings(
            {"n_points": [0, 2.5, True, "many", None], "image_shape": [3], "random_state": ["a", -1]},
            SpatialHopkins,
            lambda m: m.fit(X),
        )
    ),
    Case("no such layer", "no layer named 'head'", fit, classifier(layer="head")),
    Case("layer without maps", "no spatial extent", fit, classifier(NET, layer="3")),
    Case("no layer at all", "layer=None adds none", fit, classifier(layer=None)),
    Case("more clusters than pixels", "n_clusters=17", fit, classifier(layer="input", n_clusters=17)),
    Case("batch_size=1", "too small to cluster|batch_size", fit, classifier(batch_size=1, n_batches=1)),
    Case("regressor drop_rate", "'drop_rate' parameter of DropClusterRegressor", fit, DropClusterRegressor(drop_rate=1)),
    Case("maps of one pixel", "no spatial extent of 3 pixels", lambda m: m.fit(X[:, :1, None, None], Y), classifier()),
]  # fmt: skip

# ---- layers ------------------------------------------------------------------------

KINDS = {1: DropCluster1d, 2: DropCluster2d, 3: DropCluster3d}
LABELS = torch.arange(16).reshape(1, 4, 4) // 4


def layer():
    made = DropCluster2d(4)
    made.set_clusters(LABELS)
    return made


LAYERS = [
    *(
        Case(f"DropCluster{n}d({params})", words, functools.partial(kind, **params))
        for n, kind in KINDS.items()
        for params, words in [
            ({"n_clusters": 0}, "n_clusters=0"),
            ({"n_clusters": 2.5}, "n_clusters=2.5"),
            ({"n_clusters": True}, "n_clusters=True"),
            ({"n_clusters": "many"}, "n_clusters='many'"),
            ({"drop_rate": 1.0}, "drop_rate=1.0"),
            ({"drop_rate": float("nan")}, "drop_rate=nan"),
            ({"drop_rate": True}, "drop_rate=True"),
            ({"drop_rate": "half"}, "drop_rate='half'"),
            ({"rounding": "up"}, "rounding='up'"),
            ({"unstructured": "random"}, "unstructured='random'"),
            ({"hopkins_threshold": 2.0}, "hopkins_threshold=2.0"),
            ({"hopkins_threshold": "half"}, "hopkins_threshold='half'"),
        ]
    ),
    *(
        Case(f"set_clusters: {name}", words, lambda args=args: DropCluster2d(4).set_clusters(*args))
        for name, args, words in [
            ("two axes", (LABELS[0],), "must be .n_channels"),
            ("negative", (LABELS - 1,), "count clusters from 0"),
            ("empty", (LABELS[:0],), "must be .n_channels"),
            ("floats", (LABELS + 0.5,), "integers"),
            ("a gap", (2 * LABELS,), "leave a cluster out"),
            ("structured of another length", (LABELS, torch.ones(3)), "one value"),
        ]
    ),
    *(
        Case(f"update_clusters: {name}", words, lambda maps=maps, more=more: DropCluster2d(4).update_clusters(maps, **more))
        for name, maps, more, words in [
            ("one sample", MAPS[:1], {}, "too small to cluster"),
            ("NaN", torch.from_numpy(BROKEN.reshape(20, 1, 4, 4)), {}, "NaN or infinity"),
            ("rows", MAPS.flatten(1), {}, "came to a layer for"),
            ("few pixels", MAPS[..., :1, :2], {}, "n_clusters=4"),
            ("short weights", MAPS, {"sample_weight": torch.ones(3)}, "sample_weight"),
            ("negative weights", MAPS, {"sample_weight": -torch.ones(20)}, "too small|negative"),
        ]
    ),
    Case("other maps", "has clusters for maps of shape", lambda: layer()(torch.zeros(2, 1, 5, 5))),
    Case("other channels", "has clusters for maps of shape", lambda: layer()(torch.zeros(2, 2, 4, 4))),
    Case("rows", "came to a layer for", lambda: layer()(torch.zeros(2, 16))),
    Case("feature_maps: no such layer", "no layer named 'head'", lambda: feature_maps(NET, MAPS, "head")),
    Case("feature_maps: no maps", "no spatial extent", lambda: feature_maps(NET, MAPS, ["3"])),
    Case("feature_maps: no network", "module=.*must be a torch.nn.Module", lambda: feature_maps(print, MAPS), error=TypeError),
    Case("feature_maps: estimator", "module=.*must be a torch.nn.Module", lambda m: feature_maps(m, MAPS), fitted, TypeError),
    Case("feature_maps: other shape", "does not take", lambda: feature_maps(NET, torch.zeros(2, 3, 4, 4))),
    Case("feature_maps: array", "does not take|tensor", lambda: feature_maps(NET, IMAGES)),
    Case("fold_masks: no network", "module=.*must be a torch.nn.Module", lambda: fold_masks(print), error=TypeError),
    Case("fold_masks: estimator", "module=.*must be a torch.nn.Module", fold_masks, fitted, TypeError),
]  # fmt: skip

# ---- clustering and statistics -----------------------------------------------------

EDGES = torch.tensor([[0, 1], [1, 2]])
CLUSTERS = [
    *(
        Case(f"rena: {name}", words, functools.partial(rena, x, *args, **more))
        for name, x, args, more, words in [
            ("no cluster", X, (0,), {}, "n_clusters=0 must be an integer"),
            ("more than features", X, (17,), {}, "n_clusters=17 must be an integer"),
            ("n_clusters=2.5", X, (2.5,), {}, "n_clusters=2.5 must be an integer"),
            ("n_clusters=True", X, (True,), {}, "n_clusters=True must be an integer"),
            ("n_clusters=nan", X, (np.nan,), {}, "n_clusters=nan must be an integer"),
            ("n_clusters text", X, ("2",), {}, "n_clusters='?2'? must be an integer"),
            ("max_iter=-1", X, (2,), {"max_iter": -1}, "max_iter=-1 must be"),
            ("max_iter=1.5", X, (2,), {"max_iter": 1.5}, "max_iter=1.5 must be"),
            ("max_iter=True", X, (2,), {"max_iter": True}, "max_iter=True must be"),
            ("NaN", BROKEN, (2,), {}, "NaN or infinity"),
            ("NaN tensor", torch.from_numpy(BROKEN), (2,), {}, "NaN or infinity"),
            ("infinity", np.where(np.isnan(BROKEN), np.inf, X), (2,), {}, "NaN or infinity"),
            ("one axis", X[0], (2,), {}, "at least one sample and one feature"),
            ("no rows", X[:0], (2,), {}, "at least one sample"),
            ("no features", X[:, :0], (1,), {}, "at least one sample"),
            ("words", X.astype(str), (2,), {}, "X.*numbers"),
            ("complex", X + 0j, (2,), {}, "X.*numbers"),
            ("None", None, (2,), {}, "X.*numbers"),
            ("ragged", [[1.0], [1.0, 2.0]], (1,), {}, "X.*numbers"),
            ("sparse", sparse.csr_array(X), (2,), {}, "X.*numbers"),
            ("meta", torch.zeros(3, 4, device="meta"), (2,), {}, "meta|X"),
            ("edges beyond", X, (2,), {"edges": 20 + EDGES}, "edges"),
            ("edges negative", X, (2,), {"edges": -1 - EDGES}, "edges"),
            ("edges of floats", X, (2,), {"edges": EDGES + 0.5}, "edges"),
            ("edges of one row", X, (2,), {"edges": EDGES[0]}, "edges"),
            ("edges of words", X, (2,), {"edges": "grid"}, "edges"),
            ("weights short", X, (2,), {"sample_weight": np.ones(3)}, "sample_weight has shape"),
            ("weights negative", X, (2,), {"sample_weight": -np.ones(20)}, "must not be negative"),
            ("weights zero", X, (2,), {"sample_weight": np.zeros(20)}, "must leave at least one"),
            ("weights NaN", X, (2,), {"sample_weight": np.full(20, np.nan)}, "sample_weight contains NaN"),
            ("weights of words", X, (2,), {"sample_weight": "balanced"}, "sample_weight"),
        ]
    ),
    *(
        Case(f"hopkins: {name}", words, functools.partial(hopkins, x, **more))
        for name, x, more, words in [
            ("NaN", BROKEN, {}, "contains NaN"),
            ("one point", X[:1], {}, r"1 sample\(s\)"),
            ("one axis", X[0], {}, "Expected 2D array"),
            ("n_points=0", X, {"n_points": 0}, "n_points=0"),
            ("n_points=21", X, {"n_points": 21}, "n_points=21"),
            ("n_points=2.5", X, {"n_points": 2.5}, "n_points=2.5"),
            ("n_points=True", X, {"n_points": True}, "n_points=True"),
            ("n_points text", X, {"n_points": "many"}, "n_points='?many"),
            ("n_points None", X, {"n_points": None}, "n_points=None"),
            ("power=nan", X, {"power": np.nan}, "power=nan must be"),
            ("power=0", X, {"power": 0}, "power=0 must be"),
            ("power=-1", X, {"power": -1}, "power=-1 must be"),
            ("power=inf", X, {"power": np.inf}, "power=inf must be"),
            ("power=True", X, {"power": True}, "power=True must be"),
            ("power text", X, {"power": "e"}, "power='e' must be"),
            ("random_state", X, {"random_state": "a"}, "'a' cannot be used to seed"),
        ]
    ),
    *(
        Case(f"spatial_hopkins: {name}", words, functools.partial(spatial_hopkins, x, **more))
        for name, x, more, words in [
            ("rows", X, {}, "images must have shape"),
            ("none", IMAGES[:0], {}, "not be empty"),
            ("one pixel", IMAGES[..., :1, :1], {}, "pixel"),
            ("n_points=0", IMAGES, {"n_points": 0}, "n_points=0"),
            ("n_points=2.5", IMAGES, {"n_points": 2.5}, "n_points=2.5"),
            ("n_points=True", IMAGES, {"n_points": True}, "n_points=True"),
            ("n_points text", IMAGES, {"n_points": "many"}, "n_points='?many"),
            ("words", IMAGES.astype(str), {}, "images.*numbers"),
            ("complex", IMAGES + 0j, {}, "images.*numbers"),
            ("random_state", IMAGES, {"random_state": "a"}, "'a' cannot be used to seed"),
        ]
    ),
    *(
        Case(f"{kind.__name__}: {name}", words, lambda kind=kind, params=params, x=x: kind(**params).fit(x), error=error)
        for kind in (ReNAClusterer, SpatialHopkins)
        for name, params, x, words, error in [
            ("NaN", {}, BROKEN, "contains NaN", ValueError),
            ("one axis", {}, X[0], "Expected 2D array", ValueError),
            ("no rows", {}, X[:0], r"0 sample\(s\)", ValueError),
            ("words", {}, np.full((3, 4), "a"), "could not convert string", ValueError),
            ("complex", {}, X + 0j, "Complex data", ValueError),
            ("sparse", {}, sparse.csr_array(X), "Sparse data was passed", TypeError),
            ("dates", {}, np.full((3, 4), np.datetime64("2020-01-01")), "X holds dates", ValueError),
            ("shape of other size", {"image_shape": (3, 3)}, X, "does not fit n_features=16", ValueError),
            ("shape negative", {"image_shape": (-4, -4)}, X, "positive integers", ValueError),
            ("shape of floats", {"image_shape": (4.0, 4)}, X, "positive integers", ValueError),
            ("shape of bools", {"image_shape": (True, 16)}, X, "positive integers", ValueError),
            ("shape of text", {"image_shape": "44"}, X, "image_shape", ValueError),
            ("shape of nothing", {"image_shape": ()}, X, "does not fit|positive integers", ValueError),
            ("shape beside images", {"image_shape": (2, 8)}, IMAGES, "does not fit", ValueError),
        ]
    ),
    *(
        Case(f"connectivity: {name}", words, lambda x=x: ReNAClusterer(2, connectivity=x).fit(X))
        for name, x, words in [
            ("other size", np.eye(3), "connectivity"),
            ("rectangular", np.ones((16, 3)), "connectivity"),
            ("NaN", np.full((16, 16), np.nan), "connectivity|NaN"),
            ("words", np.full((16, 16), "a"), "connectivity|string"),
            ("one axis", np.ones(16), "connectivity|2D"),
        ]
    ),
    Case("both graphs", "pass one of them", lambda: ReNAClusterer(2, connectivity=np.eye(16), image_shape=(4, 4)).fit(X)),
    Case("more clusters than features", "n_clusters=17 is more than", lambda: ReNAClusterer(17).fit(X)),
    Case("device", "not a device that torch knows", lambda: ReNAClusterer(2, device="abacus").fit(X)),
    Case("weights short", "sample_weight.shape", lambda: ReNAClusterer(2).fit(X, sample_weight=np.ones(3))),
    Case("weights negative", "must not be negative", lambda: ReNAClusterer(2).fit(X, sample_weight=-np.ones(20))),
    Case("ReNA transform unfitted", "not fitted yet", lambda m: m.transform(X), ReNAClusterer()),
    Case("ReNA transform other features", "X has 5 features", lambda m: m.transform(X[:, :5]), clusterer),
    Case("ReNA transform NaN", "contains NaN", lambda m: m.transform(BROKEN), clusterer),
    Case("ReNA transform images of another shape", "does not fit|shape", lambda m: m.transform(X.reshape(20, 1, 2, 8)), clusterer),
    Case("ReNA inverse of other columns", "X has 3 columns, but there are 4", lambda m: m.inverse_transform(X[:, :3]), clusterer),
    Case("Hopkins transform unfitted", "not fitted yet", lambda m: m.transform(X), SpatialHopkins()),
    Case("Hopkins transform other features", "X has 5 features", lambda m: m.transform(X[:, :5]), statistic),
    Case("Hopkins transform images of another shape", "does not fit", lambda m: m.transform(X.reshape(20, 1, 4, 4)), statistic),
    Case("Hopkins transform of 8 x 2", "does not fit", lambda m: m.transform(X.reshape(20, 1, 8, 2)), statistic),
]  # fmt: skip

# ---- displays ----------------------------------------------------------------------

DISPLAYS = [
    *(
        Case(f"{name}: {what}", words, functools.partial(make, subject, *args), error=error)
        for name, make, args in [
            ("DropClusterDisplay", DropClusterDisplay.from_estimator, (IMAGES,)),
            ("LayerHopkinsDisplay", LayerHopkinsDisplay.from_estimator, (IMAGES,)),
        ]
        for what, subject, words, error in [
            ("unfitted", classifier(), "not fitted yet", ValueError),
            ("plain", StructuredClassifier(), "DropClusterClassifier", TypeError),
            ("no estimator", 3, "DropClusterClassifier", TypeError),
        ]
    ),
    *(
        Case(f"DropClusterDisplay {params}", words, lambda m, params=params: DropClusterDisplay.from_estimator(m, IMAGES, **params), fitted)
        for params, words in [
            ({"n_samples": 0}, "n_samples=0"),
            ({"n_samples": 2.5}, "n_samples=2.5"),
            ({"n_samples": True}, "n_samples=True"),
            ({"kind": "graph"}, "kind='graph'"),
            ({"channels": [99]}, r"channels=\[99\]"),
            ({"channels": []}, r"channels=\[\]"),
            ({"channels": ["a"]}, r"channels=\['a'\]"),
            ({"ax": 3}, "ax must hold"),
        ]
    ),
    Case("DropClusterDisplay: other images", "shape", lambda m: DropClusterDisplay.from_estimator(m, IMAGES.reshape(20, 1, 2, 8)), fitted),
    Case("LayerHopkinsDisplay: no such layer", "no layer named 'head'", lambda m: LayerHopkinsDisplay.from_estimator(m, IMAGES, layers=["head"]), fitted),
    Case("LayerHopkinsDisplay: axes", "ax must hold", lambda m: LayerHopkinsDisplay.from_estimator(m, IMAGES, ax=3), fitted),
    Case("LayerHopkinsDisplay: nothing", "statistics", lambda: LayerHopkinsDisplay({}).plot()),
    Case("ReNADisplay: unfitted", "not fitted yet", lambda m: ReNADisplay.from_estimator(m, X), ReNAClusterer()),
    Case("ReNADisplay: no estimator", "ReNAClusterer", lambda: ReNADisplay.from_estimator(3, X), error=TypeError),
    Case("ReNADisplay: shape", "image_shape", lambda m: ReNADisplay.from_estimator(m, X, image_shape=(3, 3)), clusterer),
    Case("ReNADisplay: mask", "mask", lambda m: ReNADisplay.from_estimator(m, X, mask=np.ones((3, 3), bool)), clusterer),
    Case("ReNADisplay: axes", "ax must hold", lambda m: ReNADisplay.from_estimator(m, X, ax=3), clusterer),
    Case("ReNADisplay: other maps", "labels|maps|shape", lambda: ReNADisplay.from_maps(LABELS, torch.zeros(2, 1, 5, 5))),
    Case("HopkinsDisplay: unfitted", "not fitted yet", lambda m: HopkinsDisplay.from_estimator(m, X), SpatialHopkins()),
    Case("HopkinsDisplay: no estimator", "SpatialHopkins", lambda: HopkinsDisplay.from_estimator(3, X), error=TypeError),
    Case("HopkinsDisplay: kind", "kind='bars'", lambda m: HopkinsDisplay.from_estimator(m, X, kind="bars"), statistic),
    Case("HopkinsDisplay: axes", "ax must hold", lambda m: HopkinsDisplay.from_estimator(m, X, ax=3), statistic),
    Case("HopkinsDisplay: rows", "images must have shape", lambda: HopkinsDisplay.from_images(X)),
    Case("HopkinsDisplay: nothing", "statistics", lambda: HopkinsDisplay({}).plot()),
]  # fmt: skip


@every(PARAMETERS)
def test_parameters(case):
    check(case)


@every(LAYERS)
def test_layers(case):
    check(case)


@every(CLUSTERS)
def test_clusters_and_statistics(case):
    check(case)


@every(DISPLAYS)
def test_displays(case):
    check(case)


def test_a_layer_before_one_that_is_called_by_keyword():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return self.layer(input=x)

    net = Keyword()
    insert_layer(net, "layer", DropCluster2d(4), before=True)
    assert net(MAPS).shape == MAPS.shape


def test_maps_of_a_mini_batch_are_clustered():
    assert rena(MAPS, 4).labels.shape == (1, 4, 4)
