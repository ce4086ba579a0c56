"""Bad input gets one clear sentence, before any work is lost."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from sklearn_structreg.blockout import Blockout
from sklearn_structreg.core import StructuredClassifier

# Fits of one or two epochs, for other purposes than to learn.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(20, 6))
Y = np.arange(20) % 3


def fitted():
    return StructuredClassifier(max_epochs=2, random_state=0).fit(X, Y)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity(bad):
    broken = X.copy()
    broken[3, 2] = bad
    with pytest.raises(ValueError, match="Input X contains (NaN|infinity)"):
        StructuredClassifier().fit(broken, Y)
    with pytest.raises(ValueError, match="Input X contains (NaN|infinity)"):
        fitted().predict(broken)


def test_wrong_number_of_features():
    with pytest.raises(ValueError, match="X has 5 features, but .* expecting 6"):
        fitted().predict(X[:, :5])


def test_unseen_labels_in_partial_fit():
    model = StructuredClassifier().partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(
        ValueError, match=r"labels \[7\] that are not among the classes"
    ):
        model.partial_fit(X, np.where(Y == 0, 7, Y))


def test_partial_fit_without_classes_or_with_others():
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        StructuredClassifier().partial_fit(X, Y)
    model = StructuredClassifier().partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="cannot change between calls"):
        model.partial_fit(X, Y, classes=[0, 1])


def test_partial_fit_with_what_needs_all_data():
    with pytest.raises(ValueError, match="early_stopping=False"):
        StructuredClassifier(early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="class_weight='balanced' needs all labels"):
        StructuredClassifier(class_weight="balanced").partial_fit(
            X, Y, classes=[0, 1, 2]
        )


def test_a_single_sample():
    with pytest.raises(ValueError, match=r"1 sample\(s\).*minimum of 2"):
        StructuredClassifier().fit(X[:1], Y[:1])


def test_a_single_sample_left_after_weighting():
    with pytest.raises(ValueError, match="n_samples=1 with a positive weight"):
        StructuredClassifier().fit(X, Y, sample_weight=[1.0] + 19 * [0.0])


def test_image_shape_that_does_not_match():
    with pytest.raises(ValueError, match=r"stands for 8 features.*but X has 6"):
        StructuredClassifier(image_shape=(2, 2, 2)).fit(X, Y)
    with pytest.raises(ValueError, match=r"shape \(1, 2, 3\), but image_shape is"):
        StructuredClassifier(image_shape=(1, 3, 2)).fit(X.reshape(-1, 1, 2, 3), Y)
    model = StructuredClassifier(max_epochs=1).fit(X.reshape(-1, 1, 2, 3), Y)
    with pytest.raises(ValueError, match=r"fit saw samples of shape \(1, 2, 3\)"):
        model.predict(X.reshape(-1, 1, 3, 2))


def test_a_shape_that_no_default_network_fits():
    with pytest.raises(ValueError, match="No default network fits"):
        StructuredClassifier().fit(X.reshape(20, 1, 1, 1, 2, 3), Y)


def test_a_module_with_the_wrong_number_of_outputs():
    with pytest.raises(ValueError, match=r"output of shape \(2, 5\).*shape \(2, 3\)"):
        StructuredClassifier(nn.Linear(6, 5)).fit(X, Y)


def test_a_module_that_does_not_take_the_samples():
    with pytest.raises(ValueError, match=r"does not take samples of shape \(6,\)"):
        StructuredClassifier(nn.Linear(4, 3)).fit(X, Y)


def test_a_factory_that_returns_no_module():
    with pytest.raises(TypeError, match="must return a torch.nn.Module"):
        StructuredClassifier(lambda shape, n_outputs: None).fit(X, Y)


@pytest.mark.parametrize("module", ["auto", nn.Linear(6, 3)])
def test_module_params_that_nothing_takes(module):
    with pytest.raises(ValueError, match="needs a module class or factory"):
        StructuredClassifier(module, module_params={"a": 1}).fit(X, Y)


def test_a_module_with_nothing_to_train():
    with pytest.raises(ValueError, match="no parameter to train"):
        StructuredClassifier(nn.Identity()).fit(X[:, :3], Y)


@pytest.mark.parametrize("sizes", [(10, -3), (0,), (2.5,)])
def test_hidden_layers_of_no_size(sizes):
    with pytest.raises(ValueError, match="must hold positive integers"):
        StructuredClassifier(hidden_layer_sizes=sizes).fit(X, Y)


def test_what_is_no_callback_optimizer_or_scheduler():
    with pytest.raises(ValueError, match="'x', which is no skorch callback"):
        StructuredClassifier(callbacks=["x"]).fit(X, Y)
    with pytest.raises(ValueError, match="no torch optimizer class"):
        StructuredClassifier(optimizer=print).fit(X, Y)
    with pytest.raises(ValueError, match="lr_schedule returned None"):
        StructuredClassifier(lr_schedule=lambda optimizer, n: None).fit(X, Y)


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="asks for a missing device: cuda is there"
)
def test_cuda_without_a_cuda_device():
    with pytest.raises(ValueError, match="device='cuda' was asked for, but"):
        StructuredClassifier(device="cuda").fit(X, Y)


def test_an_unknown_device():
    with pytest.raises(ValueError, match="not a device that torch knows"):
        StructuredClassifier(device="abacus").fit(X, Y)


@pytest.mark.parametrize("max_epochs", [1, 5])
def test_a_learning_rate_that_diverges(max_epochs):
    model = StructuredClassifier(learning_rate=1e30, max_epochs=max_epochs)
    with pytest.raises(ValueError, match="non-finite in epoch .*lower learning_rate"):
        model.fit(X, Y)
    assert not hasattr(model, "net_")


def test_a_stream_that_diverges_does_not_predict():
    model = StructuredClassifier(learning_rate=1e30)
    with pytest.raises(ValueError, match="non-finite"):
        model.partial_fit(X, Y, classes=[0, 1, 2])
    good = StructuredClassifier(max_epochs=2).fit(X, Y)
    good.net_.optimizer_.param_groups[0]["lr"] = 1e30
    before = good.predict_proba(X)
    for _ in range(2):
        with pytest.raises(ValueError, match="non-finite"):
            good.partial_fit(X, Y)
    np.testing.assert_array_equal(good.predict_proba(X), before)
    assert good.n_iter_ == 2


def test_sparse_x():
    with pytest.raises(TypeError, match="Sparse data was passed"):
        StructuredClassifier().fit(sparse.csr_array(X), Y)


def test_object_x():
    strings = X.astype(object)
    strings[0, 0] = "a word"
    with pytest.raises(ValueError, match="could not convert string to float"):
        StructuredClassifier().fit(strings, Y)


def test_sample_weights_that_leave_nothing_or_make_no_sense():
    with pytest.raises(ValueError, match="at least one"):
        StructuredClassifier().fit(X, Y, sample_weight=np.zeros(20))
    with pytest.raises(ValueError, match="[Nn]egative"):
        StructuredClassifier().fit(X, Y, sample_weight=-np.ones(20))
    with pytest.raises(ValueError, match="sample_weight.shape"):
        StructuredClassifier().fit(X, Y, sample_weight=np.ones(19))


@pytest.mark.parametrize("weight", [-1.0, np.inf, np.nan])
def test_class_weights_that_make_no_sense(weight):
    model = StructuredClassifier(class_weight={0: weight, 1: 1.0})
    with pytest.raises(ValueError, match="finite weights of at least 0"):
        model.fit(X, Y)


def test_continuous_labels():
    with pytest.raises(ValueError, match="Unknown label type"):
        StructuredClassifier().fit(X, X[:, 0])


def test_a_hold_out_that_leaves_nothing():
    model = StructuredClassifier(early_stopping=True, validation_fraction=0.9)
    with pytest.raises(ValueError, match="leaves none to train on"):
        model.fit(X[:2], Y[:2])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("momentum", 1.0),
        ("optimizer", "newton"),
        ("dtype", "int8"),
        ("lr_schedule", "linear"),
        ("validation_fraction", 1.0),
    ],
)
def test_parameters_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"The '{name}' parameter .* must be"):
        StructuredClassifier(**{name: value}).fit(X, Y)


# ---- torch datasets ------------------------------------------------------------


class Unlabelled(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        return torch.from_numpy(X[row])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


def test_datasets_that_do_not_work():
    tensors = torch.from_numpy(X), torch.from_numpy(Y)
    with pytest.raises(ValueError, match="items hold no label"):
        StructuredClassifier().fit(Unlabelled())
    with pytest.raises(TypeError, match="cannot be indexed"):
        StructuredClassifier().fit(Stream(), Y)
    with pytest.raises(ValueError, match="n_samples=1"):
        StructuredClassifier().fit(TensorDataset(*(t[:1] for t in tensors)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        StructuredClassifier().fit(TensorDataset(*tensors), Y[:5])
    with pytest.raises(ValueError, match="have 4 features, but .* expects 6"):
        fitted().predict(TensorDataset(tensors[0][:, :4]))


def test_an_optimizer_of_one_group_beside_a_regularizer_with_its_own():
    model = StructuredClassifier(
        optimizer=torch.optim.LBFGS, regularizers=[Blockout(2)], batch_size=None
    )
    with pytest.raises(ValueError, match="LBFGS takes all parameters alike"):
        model.fit(X, Y)
