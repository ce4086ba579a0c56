"""ConfusionSpectralPartitioner as scikit-learn users meet it."""

import functools
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score, confusion_matrix

from sklearn_structreg.selfinformed import ConfusionSpectralPartitioner


def same_counts(first, second):
    np.testing.assert_array_equal(
        first.confusion_.toarray(), second.confusion_.toarray()
    )
    np.testing.assert_array_equal(first.labels_, second.labels_)


@pytest.mark.parametrize("source", ["confusion", "codetection"])
def test_planted_groups_are_recovered(planted, source):
    X, y, groups = planted(120, 5, 4000, bonus=0.3, seed=0)
    partitioner = ConfusionSpectralPartitioner(5, source=source, random_state=0)
    partitioner.fit(X, y)
    assert adjusted_rand_score(partitioner.labels_, groups) >= 0.99
    assert partitioner.source_ == source
    assert partitioner.top_k_ == 2


def test_labels_number_the_groups_and_clusters_name_their_classes(planted):
    X, y, groups = planted(30, 3, 2000, bonus=0.4, seed=1)
    names = np.array([f"class {i:02}" for i in range(30)])
    partitioner = ConfusionSpectralPartitioner(3, classes=names, random_state=0)
    partitioner.fit(X, names[y])
    _, first = np.unique(partitioner.labels_, return_index=True)
    assert (np.diff(first) > 0).all()
    for group, members in enumerate(partitioner.clusters_):
        np.testing.assert_array_equal(members, names[partitioner.labels_ == group])
    assert adjusted_rand_score(partitioner.labels_, groups) == 1.0


def test_top_1_of_hard_predictions_is_the_confusion_matrix(planted):
    X, y, _ = planted(8, 2, 500, bonus=0.5, seed=2)
    partitioner = ConfusionSpectralPartitioner(2, top_k=1, random_state=0).fit(X, y)
    expected = confusion_matrix(y, X.argmax(axis=1)) / len(y)
    np.testing.assert_allclose(partitioner.confusion_.toarray(), expected, rtol=1e-13)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array, sparse.coo_array])
def test_a_precomputed_matrix_gives_what_counting_gives(planted, container):
    X, y, _ = planted(40, 4, 3000, bonus=0.2, seed=3)
    counted = ConfusionSpectralPartitioner(4, random_state=0).fit(X, y)
    given_matrix = container(counted.confusion_.toarray())
    other = ConfusionSpectralPartitioner(4, source="precomputed", random_state=0)
    same_counts(counted, other.fit(given_matrix))
    assert other.top_k_ is None


def test_weights_of_a_precomputed_matrix_weight_its_true_classes():
    matrix = np.arange(16.0).reshape(4, 4)
    weight = np.array([0.0, 1.0, 2.0, 0.5])
    one = ConfusionSpectralPartitioner(2, source="precomputed", random_state=0)
    same_counts(
        clone(one).fit(matrix, sample_weight=weight),
        clone(one).fit(weight[:, None] * matrix),
    )


@pytest.mark.parametrize("sizes", [[700], [1, 2, 697], [100] * 7])
@pytest.mark.parametrize("source", ["confusion", "codetection"])
def test_batches_add_up_to_one_fit(planted, sizes, source):
    X, y, _ = planted(20, 4, 700, bonus=0.3, seed=4)
    w = np.random.default_rng(0).integers(0, 4, len(y))
    w[:1] = 1
    whole = ConfusionSpectralPartitioner(4, source=source, random_state=0).fit(X, y, w)
    parts = clone(whole)
    for batch in np.split(np.arange(700), np.cumsum(sizes)[:-1]):
        parts.partial_fit(X[batch], y[batch], w[batch])
    same_counts(whole, parts)
    assert parts.n_samples_seen_ == whole.n_samples_seen_ == w.sum()


def test_partitions_follow_the_counts_and_fit_forgets_them(planted):
    X, y, _ = planted(20, 4, 700, bonus=0.3, seed=5)
    partitioner = ConfusionSpectralPartitioner(4, random_state=0).fit(X[:50], y[:50])
    before = partitioner.embedding_
    assert not np.array_equal(partitioner.partial_fit(X, y).embedding_, before)
    partitioner.fit(X[:50], y[:50])
    np.testing.assert_array_equal(partitioner.embedding_, before)


def test_partitioners_merge_and_the_other_stays_as_it_was(planted):
    X, y, _ = planted(20, 4, 900, bonus=0.3, seed=6)
    whole = ConfusionSpectralPartitioner(4, random_state=0).fit(X, y)
    parts = [
        clone(whole).partial_fit(X[rows], y[rows])
        for rows in np.array_split(np.arange(900), 3)
    ]
    shipped = [pickle.loads(pickle.dumps(part)) for part in parts]
    merged = functools.reduce(ConfusionSpectralPartitioner.merge, shipped)
    same_counts(merged, whole)
    same_counts(shipped[1], parts[1])


@pytest.mark.parametrize(
    "params", [{"top_k": 3}, {"source": "codetection"}, {"classes": range(1, 21)}]
)
def test_what_counted_different_things_does_not_merge(planted, params):
    X, y, _ = planted(20, 4, 300, bonus=0.3, seed=7)
    one = ConfusionSpectralPartitioner(4, classes=range(20)).fit(X, y)
    other = ConfusionSpectralPartitioner(4, classes=range(20)).set_params(**params)
    other.fit(X, y + 1 if "classes" in params else y)
    with pytest.raises(ValueError, match="add up only over the same"):
        one.merge(other)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["confusion", "codetection"]))
def test_permuting_the_classes_permutes_the_groups(planted, seed, source):
    X, y, _ = planted(24, 3, 600, bonus=0.5, seed=seed)
    order = np.random.default_rng(seed).permutation(24)
    partitioner = ConfusionSpectralPartitioner(
        3, source=source, classes=range(24), random_state=0
    ).fit(X, y)
    other = clone(partitioner).set_params(classes=order).fit(X[:, order], y)
    np.testing.assert_array_equal(
        other.confusion_.toarray(), partitioner.confusion_.toarray()[order][:, order]
    )
    assert adjusted_rand_score(other.labels_, partitioner.labels_[order]) == 1.0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["confusion", "codetection"]))
def test_a_weight_of_k_is_k_copies_and_zero_is_absent(planted, seed, source):
    X, y, _ = planted(12, 3, 40, bonus=0.3, seed=seed)
    weight = np.random.default_rng(seed).integers(0, 4, 40)
    weight[0] = 1
    partitioner = ConfusionSpectralPartitioner(
        2, source=source, classes=range(12), random_state=0
    )
    copies = np.repeat(np.arange(40), weight)
    same_counts(
        clone(partitioner).fit(X, y, sample_weight=weight),
        clone(partitioner).fit(X[copies], y[copies]),
    )


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_an_indicator_is_a_truth_with_any_number_of_classes(planted, container):
    X, y, _ = planted(20, 4, 500, bonus=0.3, seed=8)
    labels = ConfusionSpectralPartitioner(4, random_state=0).fit(X, y)
    indicator = container(np.eye(20)[y])
    same_counts(labels, clone(labels).fit(X, indicator))

    two = np.eye(20)[y] + np.eye(20)[(y + 1) % 20]
    multilabel = clone(labels).fit(X, container(two))
    shifted = clone(labels).fit(X, (y + 1) % 20)
    np.testing.assert_allclose(
        multilabel.confusion_.toarray(),
        (labels.confusion_ + shifted.confusion_).toarray(),
    )


def test_the_columns_of_a_dataframe_name_the_classes(planted):
    X, y, _ = planted(10, 2, 400, bonus=0.5, seed=9)
    names = np.array([f"label {i}" for i in range(10)], dtype=object)
    frame = pd.DataFrame(X, columns=names)
    truth = pd.Series(names[y])
    partitioner = ConfusionSpectralPartitioner(2, random_state=0).fit(frame, truth)
    np.testing.assert_array_equal(partitioner.classes_, names)
    partitioner.set_output(transform="pandas")
    mass = partitioner.transform(frame)
    assert list(mass.columns) == [
        "confusionspectralpartitioner0",
        "confusionspectralpartitioner1",
    ]
    np.testing.assert_allclose(mass.sum(axis=1), X.sum(axis=1))
    # Without a truth the names are all there is to go by.
    partitioner.fit(frame)
    assert partitioner.source_ == "codetection"
    np.testing.assert_array_equal(partitioner.classes_, names)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transform_sums_the_scores_of_each_group(planted, dtype):
    X, y, _ = planted(12, 3, 400, bonus=0.5, seed=10)
    partitioner = ConfusionSpectralPartitioner(3, random_state=0).fit(X, y)
    mass = partitioner.transform(X.astype(dtype))
    assert mass.dtype == dtype
    for group in range(3):
        expected = X[:, partitioner.labels_ == group].sum(axis=1)
        np.testing.assert_allclose(mass[:, group], expected, rtol=1e-5)


def test_a_random_state_repeats_the_result_and_a_pickle_keeps_it(planted):
    X, y, _ = planted(200, 8, 3000, bonus=0.1, seed=11)
    one = ConfusionSpectralPartitioner(8, random_state=3).fit(X, y)
    other = clone(one).fit(X, y)
    np.testing.assert_array_equal(one.embedding_, other.embedding_)
    loaded = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(loaded.transform(X), other.transform(X))
    same_counts(loaded, other)


@pytest.mark.parametrize(
    ("n_classes", "n_groups", "n_samples", "bonus"),
    [
        *((60, 12, 3000, 0.2), (100, 4, 2000, 0.2), (100, 20, 10_000, 0.1)),
        *((24, 2, 2000, 0.3), (300, 12, 9000, 0.2)),
    ],
)
def test_auto_counts_planted_groups_in_every_resample(
    planted, n_classes, n_groups, n_samples, bonus
):
    X, y, groups = planted(n_classes, n_groups, n_samples, bonus=bonus, seed=12)
    rng = np.random.default_rng(0)
    for rows in (np.arange(n_samples), *rng.integers(n_samples, size=(4, n_samples))):
        partitioner = ConfusionSpectralPartitioner(random_state=0)
        partitioner.fit(X[rows], y[rows])
        assert partitioner.n_clusters_ == n_groups
        assert adjusted_rand_score(partitioner.labels_, groups) > 0.95
    assert partitioner.top_k_ == 2


def test_auto_without_a_clear_gap_is_the_papers_value_capped_by_the_data(planted):
    X, y, _ = planted(100, 12, 1000, bonus=0.01, seed=12)
    found = [
        ConfusionSpectralPartitioner(random_state=0).fit(X[y < n, :n], y[y < n])
        for n in (100, 8, 6, 5, 3)
    ]
    first, *others = (partitioner.n_clusters_ for partitioner in found)
    assert first == 6
    assert all(n <= most for n, most in zip(others, [4, 3, 2, 1], strict=True))


def test_the_hierarchy_joins_the_groups_that_are_confused_most():
    pairs = np.kron(np.eye(4), np.full((3, 3), 20.0))  # four groups of three classes,
    pairs += np.kron(
        np.kron(np.eye(2), np.ones((2, 2))), np.full((3, 3), 2.0)
    )  # in two
    settings = {"source": "precomputed", "random_state": 0}
    partitioner = ConfusionSpectralPartitioner(4, **settings).fit(pairs + 0.1)
    tree = partitioner.hierarchy_
    assert {frozenset(pair) for pair in tree[:2, :2].tolist()} == {
        frozenset({0.0, 1.0}),
        frozenset({2.0, 3.0}),
    }
    profiles = np.array([pairs[3 * i] + 0.1 for i in range(4)])
    profiles /= np.linalg.norm(profiles, axis=1, keepdims=True)
    expected = 1 - (profiles @ profiles.T)[0, 1]
    assert tree[0, 2] == pytest.approx(expected)
    huge = ConfusionSpectralPartitioner(4, **settings).fit(1e300 * (pairs + 0.1))
    np.testing.assert_allclose(huge.hierarchy_[:, 2], tree[:, 2])
    assert ConfusionSpectralPartitioner(1, **settings).fit(pairs).hierarchy_.size == 0


def test_one_class_is_one_group():
    partitioner = ConfusionSpectralPartitioner().fit([[0.5], [0.7]], [0, 0])
    assert partitioner.labels_.tolist() == [0]
    assert partitioner.n_clusters_ == partitioner.top_k_ == 1
    assert partitioner.transform([[0.5]]).tolist() == [[0.5]]


def test_a_perfect_model_leaves_one_group_and_says_so_if_asked_for_more():
    partitioner = ConfusionSpectralPartitioner(source="precomputed").fit(np.eye(8))
    assert partitioner.n_clusters_ == 1
    assert partitioner.isolated_.all()
    assert not partitioner.labels_.any()
    with pytest.raises(ValueError, match=r"only 0 of the 8 class\(es\) share"):
        partitioner.set_params(n_clusters=2).fit(np.eye(8))


def test_classes_never_seen_nor_predicted_are_isolated(planted):
    X, y, groups = planted(40, 4, 3000, bonus=0.4, seed=13)
    wide = np.hstack([X, np.full((3000, 2), -1.0)])
    wide[y == 0, 40] = 9.0  # never true, but detected wherever class 0 is true
    partitioner = ConfusionSpectralPartitioner(4, random_state=0).fit(wide, y)
    assert np.flatnonzero(partitioner.isolated_).tolist() == [40, 41]
    assert partitioner.labels_[40] == partitioner.labels_[0]
    assert adjusted_rand_score(partitioner.labels_[:40], groups) == 1.0


def test_partial_fit_reports_what_the_counts_cannot_carry_when_asked(planted):
    partitioner = ConfusionSpectralPartitioner(3).partial_fit([[0.1, 0.2, 0.4]], [2])
    with pytest.raises(ValueError, match="ask for at most"):
        partitioner.labels_  # noqa: B018
    assert partitioner.confusion_.nnz == 2


def test_before_fit_there_is_nothing():
    for name in ("labels_", "clusters_", "confusion_", "n_clusters_", "embedding_"):
        assert not hasattr(ConfusionSpectralPartitioner(), name)
    with pytest.raises(NotFittedError):
        ConfusionSpectralPartitioner().transform([[0.0]])
    with pytest.raises(NotFittedError):
        ConfusionSpectralPartitioner().merge(ConfusionSpectralPartitioner())


RNG = np.random.default_rng(0)
SCORES, LABELS = RNG.random((30, 6)), np.arange(30) % 6


@pytest.mark.parametrize(
    ("params", "X", "y", "weight", "message"),
    [
        ({"n_clusters": 7}, SCORES, LABELS, None, "only 6 of the 6"),
        ({"n_clusters": 0}, SCORES, LABELS, None, "'n_clusters' parameter"),
        ({"n_clusters": "many"}, SCORES, LABELS, None, "'n_clusters' parameter"),
        ({"top_k": 6}, SCORES, LABELS, None, "give at most 5"),
        ({"top_k": 0}, SCORES, LABELS, None, "'top_k' parameter"),
        ({"top_k": 1}, SCORES, None, None, "at least 2"),
        ({"source": "guess"}, SCORES, LABELS, None, "'source' parameter"),
        ({"source": "confusion"}, SCORES, None, None, "requires y to be passed"),
        ({"classes": "abc"}, SCORES, LABELS, None, "'classes' parameter"),
        ({"classes": range(5)}, SCORES, LABELS, None, "names 5 classes"),
        ({"classes": range(1, 7)}, SCORES, LABELS, None, "holds the label 0"),
        ({}, SCORES, LABELS + 2 * (LABELS > 2), None, None),
        ({}, SCORES[:, :5], LABELS + 1, None, "holds the label 5"),
        ({}, SCORES, np.array(list("abcde"))[LABELS % 5], None, "pass `classes`"),
        ({}, SCORES, LABELS[:9], None, "inconsistent numbers of samples"),
        ({}, SCORES, np.eye(5)[LABELS % 5], None, "y has 5 columns"),
        ({}, SCORES[:0], LABELS[:0], None, "0 sample"),
        ({}, np.where(SCORES > 0.9, np.nan, SCORES), LABELS, None, "NaN"),
        ({}, np.where(SCORES > 0.9, np.inf, SCORES), LABELS, None, "infinity"),
        ({}, SCORES, LABELS, np.zeros(30), "zero"),
        ({}, SCORES, LABELS, -np.ones(30), "[Nn]egative"),
        ({}, SCORES, LABELS, np.ones(9), "sample_weight"),
        ({"source": "precomputed"}, SCORES, None, None, "must be square"),
        ({"source": "precomputed"}, -np.eye(3), None, None, "Negative values"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bad_input_gets_one_clear_sentence(params, X, y, weight, message, method):
    partitioner = ConfusionSpectralPartitioner(**params)
    if message is None:  # six distinct labels name six columns, gaps or not
        partitioner.fit(X, y, weight)
        assert partitioner.classes_.tolist() == [0, 1, 2, 5, 6, 7]
        return
    with pytest.raises(ValueError, match=message):
        getattr(partitioner, method)(X, y, weight).labels_  # noqa: B018


def test_a_batch_must_have_the_width_of_the_first_and_a_failed_one_counts_nothing():
    partitioner = ConfusionSpectralPartitioner(classes=range(6))
    partitioner.partial_fit(SCORES, LABELS)
    before = partitioner.confusion_.toarray()
    with pytest.raises(ValueError, match="5 features"):
        partitioner.partial_fit(SCORES[:, :5], LABELS)
    with pytest.raises(ValueError, match="requires y"):
        partitioner.partial_fit(SCORES)
    with pytest.raises(ValueError, match="the label 6"):
        partitioner.partial_fit(SCORES, LABELS + 1)
    np.testing.assert_array_equal(partitioner.confusion_.toarray(), before)
