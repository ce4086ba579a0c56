"""BlockoutClassifier: a network that learns its own hierarchical architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import accuracy_score
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sklearn_structreg.blockout.conversion import (
    blockout_layers,
    ends_at_outputs,
    fold,
    node_sets,
)
from sklearn_structreg.blockout.diagnosis import Diagnosis, diagnose
from sklearn_structreg.blockout.hardening import HardenedNet, harden_network
from sklearn_structreg.blockout.hierarchy import ClassHierarchy
from sklearn_structreg.blockout.regularizer import (
    BlockoutRegularizer,
    DropoutRegularizer,
    check_same_structure,
)
from sklearn_structreg.core import Regularizer, StructuredClassifier
from sklearn_structreg.core.modules import ModuleLike

__all__ = ["BlockoutClassifier"]


class BlockoutClassifier(StructuredClassifier):
    r"""Neural network that learns a hierarchical architecture while it trains.

    Every node of the fully-connected layers, inputs and classes included, belongs to
    each of k clusters with a probability that is learned. Each training step draws
    the memberships :math:`C_j \sim B(1, P_j)` and keeps the weights between nodes that
    share clusters,

    .. math:: W_j = \frac{s_j}{k} \tilde W_j \odot C_j C_{j-1}^T ,
              \qquad P_j = \mathrm{logistic}(\mathrm{logits}_j) ;

    inference takes :math:`P_j` in place of :math:`C_j`.

    Parameters
    ----------
    module : "auto", torch.nn.Module class, instance or factory, default="auto"
        The network. One that has `BlockoutLinear` layers of its own keeps them as
        they are.
    n_clusters : int, default=6
        k, the most branches that the architecture can have.
    assignment : {"hard", "soft"}, default="hard"
        "hard" draws memberships while training, "soft" uses the probabilities
        themselves.
    learn_probabilities : bool, default=True
        Whether the probabilities are trained with the weights or stay as they are.
    init_probability : float in (0, 1], default=0.5
        The first probability of every membership. 1 is the plain network, bit for bit.
    mask_per : {"batch", "sample"}, default="batch"
        One draw for each training step, as in the paper, or one for each sample,
        at the cost of k matrix products instead of one.
    logit_rate_factor : float, default=20.0
        Learning rate of the logits as a multiple of `learning_rate`. The gradient of a
        membership is small beside those of the weights: with 1 the probabilities
        hardly leave `init_probability` in the first thousand steps.
    regularizer : {"blockout", "dropout"} or None, default="blockout"
        "dropout" trains the same network with dropout between the same layers, None
        without either. Dropout layers that the module has itself stay in all three.
    drop_rate : float in [0, 1), default=0.5
        Only with dropout: the probability of dropping a node between two layers. 0 is
        the plain network, and so is a chain of one layer.
    layers : "auto" or list of str, default="auto"
        The chain of linear layers to convert, by their names in the module. "auto"
        takes the fully-connected head, output layer included.
    module_params, hidden_layer_sizes, image_shape
    max_epochs, batch_size, optimizer, learning_rate, momentum, weight_decay
    lr_schedule, class_weight, early_stopping, validation_fraction
    n_iter_no_change, callbacks, device, dtype, warm_start, random_state, verbose
        Common to all estimators: see
        :class:`~sklearn_structreg.core.StructuredClassifier`. The weight decay spares
        the logits, which it would pull to a probability of one half. A warm start goes
        on with the clusters or the dropout that there are: it takes another
        `logit_rate_factor`, and raises an error for other settings of the regularizer.

    Attributes
    ----------
    cluster_probabilities_ : list of ndarray of shape (d_j, n_clusters)
        P of every node set, from the inputs of the first layer to the classes.
    expected_clusters_ : list of ndarray of shape (d_j,)
        How many clusters each node belongs to on average: sums of the probabilities.
    history_ : skorch.history.History
        Holds ``probability_histogram`` and ``probability_quantiles`` of every epoch:
        see :class:`~sklearn_structreg.blockout.ProbabilityRecorder`.
    classes_, n_features_in_, feature_names_in_, input_shape_, net_, module_, n_iter_
        Common to all estimators.

    See Also
    --------
    sklearn_structreg.blockout.convert : The same layers for a net of your own.

    Notes
    -----
    The constants :math:`s_j` let the activations of training start at the plain net's
    scale. The paper has none (s = 1), so that a layer starts at 0.31 of that scale for
    the defaults. They are factors of the mask, as dropout's 1 / (1 - rate) is one of
    the activations. With them in the first weights instead, a step of the same learning
    rate would change the masked weights about ten times less; with them in the mask,
    the highest rate that a plain net stands is too high.

    References
    ----------
    C. Murdock, Z. Li, H. Zhou and T. Duerig, "Blockout: Dynamic Model Selection for
    Hierarchical Deep Networks", CVPR 2016: sections 4 to 6, Eqs. 3-10, Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.preprocessing import minmax_scale
    >>> from sklearn_structreg import BlockoutClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = minmax_scale(X)
    >>> net = BlockoutClassifier(max_epochs=20, random_state=0).fit(X, y)
    >>> net.score(X, y) > 0.9
    True
    >>> [p.shape for p in net.cluster_probabilities_]
    [(64, 6), (100, 6), (10, 6)]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **StructuredClassifier._parameter_constraints,
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "assignment": [StrOptions({"hard", "soft"})],
        "learn_probabilities": ["boolean"],
        "init_probability": [Interval(Real, 0, 1, closed="right")],
        "mask_per": [StrOptions({"batch", "sample"})],
        "logit_rate_factor": [Interval(Real, 0, None, closed="left")],
        "regularizer": [StrOptions({"blockout", "dropout"}), None],
        "drop_rate": [Interval(Real, 0, 1, closed="left")],
        "layers": [StrOptions({"auto"}), "array-like"],
    }

    def __init__(
        self,
        module: ModuleLike = "auto",
        *,
        n_clusters: int = 6,
        assignment: str = "hard",
        learn_probabilities: bool = True,
        init_probability: float = 0.5,
        mask_per: str = "batch",
        logit_rate_factor: float = 20.0,
        regularizer: str | None = "blockout",
        drop_rate: float = 0.5,
        layers: str | Sequence[str] = "auto",
        module_params: Mapping[str, Any] | None = None,
        hidden_layer_sizes: Sequence[int] = (100,),
        image_shape: Sequence[int] | None = None,
        max_epochs: int = 100,
        batch_size: int | None = 128,
        optimizer: str | type[torch.optim.Optimizer] = "sgd",
        learning_rate: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        lr_schedule: str | Callable[..., Any] | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        callbacks: list[Any] | None = None,
        device: str | torch.device = "auto",
        dtype: str = "float32",
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            module,
            module_params=module_params,
            hidden_layer_sizes=hidden_layer_sizes,
            image_shape=image_shape,
            max_epochs=max_epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            lr_schedule=lr_schedule,
            class_weight=class_weight,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            callbacks=callbacks,
            device=device,
            dtype=dtype,
            warm_start=warm_start,
            random_state=random_state,
            verbose=verbose,
        )
        self.n_clusters = n_clusters
        self.assignment = assignment
        self.learn_probabilities = learn_probabilities
        self.init_probability = init_probability
        self.mask_per = mask_per
        self.logit_rate_factor = logit_rate_factor
        self.regularizer = regularizer
        self.drop_rate = drop_rate
        self.layers = layers

    def _make_regularizer(self) -> Regularizer:
        made = self._regularizer_of_parameters()
        if hasattr(self, "net_"):  # a warm start
            check_same_structure(self.net_.regularizer, made)
        return made

    def _regularizer_of_parameters(self) -> Regularizer:
        if self.regularizer is None:
            return Regularizer()
        layers = self.layers if isinstance(self.layers, str) else list(self.layers)
        if self.regularizer == "dropout":
            return DropoutRegularizer(self.drop_rate, layers)
        return BlockoutRegularizer(
            self.n_clusters,
            assignment=self.assignment,
            learn_probabilities=self.learn_probabilities,
            init_probability=self.init_probability,
            mask_per=self.mask_per,
            layers=layers,
            logit_learning_rate=self.logit_rate_factor * self.learning_rate,
        )

    @property
    def cluster_probabilities_(self) -> list[NDArray[Any]]:
        """P of every node set, from the inputs of the first layer to the classes."""
        sets = node_sets(self.module_)
        if not sets:
            raise AttributeError(
                "The network has no clusters; fit it with regularizer='blockout'."
            )
        return [nodes.probabilities.detach().cpu().numpy() for nodes in sets]

    @property
    def expected_clusters_(self) -> list[NDArray[Any]]:
        """How many clusters each node of every node set belongs to on average."""
        return [p.sum(axis=1) for p in self.cluster_probabilities_]

    def fold(self) -> nn.Module:
        """Return a copy of the network with plain linear layers and the same outputs.

        Returns
        -------
        torch.nn.Module
            In evaluation mode, without node sets; every weight is the mean of its
            masked weights (Eq. 5).
        """
        check_is_fitted(self, "net_")
        return fold(self.module_)

    def harden(
        self,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        threshold: float = 0.5,
    ) -> HardenedNet:
        """Make the learned structure real: a net of blocks, with zeros between them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, C, H, W), \
                default=None
            Samples to compare the accuracies on, best held out.
        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            Their labels. Of several labels per sample, all have to be right.
        threshold : float in (0, 1], default=0.5
            From which probability on a node is in a cluster.

        Returns
        -------
        HardenedNet
            The net with zeros, the same as parallel branches, and a report to print.

        Raises
        ------
        ValueError
            If only one of X and y is given, the threshold is out of range, or the
            Blockout layers form more than one chain.
        """
        check_is_fitted(self, "net_")
        if (X is None) != (y is None):
            raise ValueError("Pass both X and y to compare accuracies, or neither.")
        probabilities, layers = (
            self.cluster_probabilities_,
            blockout_layers(self.module_),
        )
        if len(probabilities) != len(layers) + 1:
            raise ValueError(
                "The network's Blockout layers form more than one chain; harden each "
                "with sklearn_structreg.blockout.harden_network."
            )
        name_of = {id(part): name for name, part in self.module_.named_modules()}
        names = [name_of[id(layer)] for layer in layers]
        hardened = harden_network(self.fold(), names, probabilities, threshold)
        if X is None:
            return hardened
        after = self._decide(self._logits(X, hardened.module))
        return replace(
            hardened,
            accuracy=accuracy_score(y, self.predict(X)),
            hardened_accuracy=accuracy_score(y, after),
        )

    def class_hierarchy(
        self,
        class_names: ArrayLike | None = None,
        *,
        threshold: float = 0.5,
        distance: str = "probabilities",
    ) -> ClassHierarchy:
        """Return which classes share clusters, and a tree over them.

        Parameters
        ----------
        class_names : array-like of shape (n_classes,), default=None
            None stands for `classes_`.
        threshold : float in (0, 1], default=0.5
            From which probability on a class is in a cluster.
        distance : {"probabilities", "profile"}, default="probabilities"
            What the tree goes by, as in
            :meth:`~sklearn_structreg.blockout.ClassHierarchy.of`.

        Returns
        -------
        ClassHierarchy

        Raises
        ------
        ValueError
            If the chain of Blockout layers does not end at the classes.
        """
        check_is_fitted(self, "net_")
        P = self.cluster_probabilities_[-1]
        if not ends_at_outputs(self.module_, self.input_shape_):
            raise ValueError(
                f"The {len(P)} nodes of the last set are not the "
                f"{len(self.classes_)} classes; name a chain in layers that ends at "
                "the output layer."
            )
        names = self.classes_ if class_names is None else class_names
        return ClassHierarchy.of(P, names, threshold=threshold, distance=distance)

    def diagnose(self) -> Diagnosis:
        """Say what became of the probabilities: section 6's outcomes in words.

        Returns
        -------
        Diagnosis
            By node set; print it.

        Raises
        ------
        ValueError
            If the probabilities started so near to 0 or 1 that outcomes are all alike.
        """
        check_is_fitted(self, "net_")
        probabilities = self.cluster_probabilities_
        starts = [nodes.init_probability for nodes in node_sets(self.module_)]
        return diagnose(probabilities, starts)
