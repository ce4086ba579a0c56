"""Which column a label means."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sklearn_structreg.selfinformed.labels import (
    check_classes,
    check_truth,
    infer_classes,
    read_truth,
)

NAMES = np.array(["a", "b", "c"], dtype=object)


@pytest.mark.parametrize(
    ("y", "names", "whole", "expected"),
    [
        (None, None, True, [0, 1, 2]),
        (None, NAMES, True, ["a", "b", "c"]),
        (np.eye(3), None, True, [0, 1, 2]),
        (["b", "a"], NAMES, True, ["a", "b", "c"]),
        (["x", "z", "y"], NAMES, True, ["x", "y", "z"]),
        ([10, 30, 20, 10], None, True, [10, 20, 30]),
        ([10, 30, 20, 10], None, False, [0, 1, 2]),
        ([0, 2, 2], None, True, [0, 1, 2]),
        ([0, 2, 2], NAMES, True, [0, 1, 2]),
    ],
)
def test_what_the_columns_are_called(y, names, whole, expected):
    classes = infer_classes(y, 3, names, whole=whole)
    assert classes.tolist() == expected


def test_labels_that_may_be_shifted_by_one_warn():
    with pytest.warns(UserWarning, match="rule out a shift by one"):
        infer_classes([1, 2], 3, None, whole=True)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["b", "a"], ["a", "b"]),
        ([7, 3], [3, 7]),
        ([7.0, 3.0], [3, 7]),
        ([True, False], [False, True]),
        (np.array(["b", "a"], dtype=object), ["a", "b"]),
        (pd.Series(["b", "a"], dtype="category"), ["a", "b"]),
        (pd.Series(["b", "a"], dtype="string"), ["a", "b"]),
        (pd.Series([7, 3], dtype="Int64"), [3, 7]),
        (pd.DataFrame([[0, 1], [1, 0]]), ["a", "b"]),
        ([[0, 1], [1, 0]], ["a", "b"]),
        (np.array([[False, True], [True, False]]), ["a", "b"]),
        (sparse.csc_matrix([[0, 1], [1, 0]]), ["a", "b"]),
    ],
)
def test_every_kind_of_label_is_read(y, classes):
    y = check_truth(y, np.zeros((2, 2)))
    truth = read_truth(y, np.array(classes))
    np.testing.assert_array_equal(truth.toarray(), [[0, 1], [1, 0]])


def test_a_multilabel_truth_may_have_any_number_of_ones_and_is_not_changed():
    y = sparse.csr_array(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    truth = read_truth(y, np.arange(3))
    truth.data[:] = 5.0
    np.testing.assert_array_equal(y.toarray(), [[1, 1, 0], [0, 0, 0]])


def test_gapless_labels_beyond_the_columns_are_uncovered_classes():
    truth = read_truth([0, 2, 1, 3], np.arange(2), strict=False)
    np.testing.assert_array_equal(truth.toarray(), [[1, 0], [0, 0], [0, 1], [0, 0]])
    with pytest.raises(ValueError, match="the label 2, which is none of the classes"):
        read_truth([0, 2, 1, 3], np.arange(2))
    with pytest.raises(ValueError, match="the label 3, which is none of the classes"):
        read_truth([0, 3, 1], np.arange(2), strict=False)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0.5, 1.0], "Unknown label type"),
        (np.array([1, "a"], dtype=object), "Unknown label type"),
        ([np.nan, 1.0], "NaN"),
        ([0, 1, 1], "inconsistent numbers of samples"),
        ([[0, 1, 1], [1, 0, 1]], r"y has 3 columns, but X has 2 feature\(s\)"),
        ([[0, 2], [1, 0]], "other than 0 and 1"),
        ([["a", "b"], ["a", "b"]], "other than 0 and 1"),
    ],
)
def test_what_is_no_truth_is_refused(y, message):
    with pytest.raises(ValueError, match=message):
        read_truth(check_truth(y, np.zeros((2, 2))), np.arange(2))


@pytest.mark.parametrize(
    ("classes", "message"),
    [(["a", "b"], "names 2 classes, but X has 3"), (["a", "b", "a"], "a name twice")],
)
def test_classes_must_name_every_column_once(classes, message):
    with pytest.raises(ValueError, match=message):
        check_classes(classes, 3)
