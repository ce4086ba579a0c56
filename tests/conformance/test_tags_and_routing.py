"""Tags say what `fit` takes, and metadata are routed through pipelines and searches."""

import warnings

import numpy as np
import pytest
import sklearn
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import get_tags

import sklearn_structreg
from sklearn_structreg import (
    BlockoutClassifier,
    BlockoutRegressor,
    CGESClassifier,
    CGESClassifierCV,
    CGESRegressor,
    CGESRegressorCV,
    CGESSelector,
    ConfusionSpectralPartitioner,
    DropClusterClassifier,
    DropClusterRegressor,
    ReNAClusterer,
    SelfInformedClassifier,
    SpatialHopkins,
    StrengthSearchCV,
    StructuredClassifier,
    StructuredRegressor,
)

FAST = {"max_epochs": 1, "hidden_layer_sizes": (4,), "random_state": 0}
ROUGH = {**FAST, "alphas": [0.1], "cv": 2}
SEARCHED = CGESClassifier(**FAST), {"alpha": [0.1, 0.2]}
ESTIMATORS = [
    BlockoutClassifier(**FAST),
    BlockoutRegressor(**FAST),
    CGESClassifier(**FAST),
    CGESClassifierCV(**ROUGH),
    CGESRegressor(**FAST),
    CGESRegressorCV(**ROUGH),
    CGESSelector(2, estimator=CGESClassifier(**FAST), random_state=0),
    ConfusionSpectralPartitioner(2),
    DropClusterClassifier(**FAST),
    DropClusterRegressor(**FAST),
    ReNAClusterer(4),
    SelfInformedClassifier(**FAST, n_clusters=2),
    SpatialHopkins(image_shape=(4, 4)),
    StrengthSearchCV(*SEARCHED, cv=2),
    StructuredClassifier(**FAST),
    StructuredRegressor(**FAST),
]
EACH = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)

RNG = np.random.default_rng(0)
X, Y = RNG.uniform(size=(40, 16)), np.arange(40) % 4


def takes(estimator, samples, targets):
    """Whether a clone can be fitted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            clone(estimator).fit(samples, targets)
        except (TypeError, ValueError):
            return False
    return True


def test_the_table_has_all_estimators():
    public = [getattr(sklearn_structreg, n) for n in sklearn_structreg.__all__]
    found = {each for each in public if hasattr(each, "fit")}
    assert {type(each) for each in ESTIMATORS} == found


@EACH
def test_tags_say_what_fit_takes(estimator):
    tags = get_tags(estimator)
    holes, labels = np.where(X > 0.9, np.nan, X), np.eye(4, dtype=int)[Y][:, :3]
    several = np.column_stack([Y, Y[::-1]])  # classes, or numbers, in two columns
    assert takes(estimator, X, Y)
    assert takes(estimator, sparse.csr_array(X), Y) == tags.input_tags.sparse
    assert takes(estimator, X.reshape(40, 4, 4), Y) == tags.input_tags.three_d_array
    assert takes(estimator, holes, Y) == tags.input_tags.allow_nan
    assert takes(estimator, X, None) == (not tags.target_tags.required)
    if tags.estimator_type is not None:
        assert takes(estimator, X, several) == tags.target_tags.multi_output
    if tags.classifier_tags is not None:
        assert takes(estimator, X, labels) == tags.classifier_tags.multi_label
    name = type(estimator).__name__
    kinds = {"Classifier": "classifier", "Regressor": "regressor"}
    named = next((kinds[each] for each in kinds if each in name), None)
    assert tags.estimator_type == ("classifier" if "Search" in name else named)
    assert tags.requires_fit
    assert not tags.non_deterministic
    assert not tags.no_validation


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@EACH
def test_metadata_reach_every_estimator(estimator):
    with sklearn.config_context(enable_metadata_routing=True):
        searches = isinstance(estimator, StrengthSearchCV)
        inner = clone(estimator.estimator if searches else estimator)
        takers = [m for m in ("fit", "score") if hasattr(inner, f"set_{m}_request")]
        assert ("fit" in takers) == (not isinstance(estimator, SpatialHopkins))
        assert ("score" in takers) == (get_tags(estimator).estimator_type is not None)
        for method in takers:
            getattr(inner, f"set_{method}_request")(sample_weight=True)
        if searches:
            inner = StrengthSearchCV(inner, estimator.param_grid, cv=2)
        pipeline = make_pipeline(MinMaxScaler(), inner)
        search = GridSearchCV(pipeline, {}, scoring=None if "score" in takers else len)
        for method in takers:
            own = () if searches else (inner, pipeline)
            # Scores of searches say nothing before scikit-learn 1.7.
            for each in (inner, pipeline, search) if method == "fit" else own:
                router = each.get_metadata_routing()
                assert router.consumes(method, {"sample_weight", "else"}) == {
                    "sample_weight"
                }
        if "fit" in takers:
            pipeline.fit(X, Y, sample_weight=np.ones(40))
