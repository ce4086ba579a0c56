"""CGESClassifier: a network that keeps only the weights it needs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch.utils.data import Dataset

from sklearn_structreg.cges.importance import first_layer_norms
from sklearn_structreg.cges.layers import count_parameters, weight_sparsity
from sklearn_structreg.cges.pruning import Pruner
from sklearn_structreg.cges.regularizer import CGESRegularizer, LayerScale
from sklearn_structreg.compaction import SizeReport, compact, size_report
from sklearn_structreg.core import StructuredClassifier
from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.modules import ModuleLike
from sklearn_structreg.core.training import make_net
from sklearn_structreg.core.validation import check_samples

__all__ = ["CGESClassifier"]


class CGESClassifier(StructuredClassifier):
    r"""Neural network with combined group and exclusive sparsity (CGES).

    Training minimizes, by a proximal step after every step of the optimizer,

    .. math:: L(W) + \alpha \sum_l \sum_g \Big( (1-\mu_l)\, a_l \|w_g^{(l)}\|_2
              + \frac{\mu_l\, b_l}{2} \|w_g^{(l)}\|_1^2 \Big),

    where the groups of layer l are the weights that leave one of its input features.
    The first term switches whole features off, the second lets the units of the layer
    compete for those that stay; from bottom to top :math:`\mu_l` moves the weight from
    the first to the second.

    Parameters
    ----------
    module : "auto", torch.nn.Module class, instance or factory, default="auto"
        The network. The weights of its linear and convolutional layers are penalised;
        biases, normalization layers and what is frozen (``requires_grad=False``) are
        not.
    alpha : float, default=1e-4
        Strength of the penalty, at least 0; with 0 this is the plain network, bit for
        bit. Worth a search on a log scale.
    penalty : {"cges", "group", "exclusive", "l1", "l2"}, default="cges"
        "group" and "exclusive" are the two terms alone, with :math:`\mu_l` 0 and 1;
        "l1" is :math:`\|w\|_1`, "l2" :math:`\frac12\|w\|_2^2`.
    exclusivity : float in [0, 1], default=0.2
        m in :math:`\mu_l = m + (1-2m)\,l/(L-1)`, for "cges": the share of the exclusive
        term at the bottom layer, and of the group term at the top. A network with a
        single penalised layer gets the top layer's :math:`1-m`.
    groups : {"feature", "filter"}, default="feature"
        "feature": a group is all weights that leave one input, for convolutions one
        tap of the kernel across all filters. "filter": all weights that enter one
        unit or filter.
    prox : {"exact", "paper"}, default="exact"
        The exclusive term's proximal operator: exact, or the paper's Eq. 8, which
        takes the norm before the step and zeroes whole groups once
        ``lr * alpha * mu * b`` reaches one.
    prox_every : int, default=1
        Apply the operators after every so many steps, with the summed step size, and
        at the end of each epoch. More than 1 trades exactness for speed on small nets.
    layer_scale : "auto", None or sequence, default="auto"
        The constants :math:`a_l` and :math:`b_l`. "auto" takes
        :math:`a_l=\sqrt{n_g}` (a tenth of it for "cges") and :math:`b_l=\sqrt{d}/n_g`
        with n_g weights in a group and d inputs per unit, so that one alpha means a
        similar thing on every layer. None is the bare paper, all ones. A sequence gives
        a constant, or a pair (a, b), for each penalised layer in forward order.
    target_density : float in (0, 1] or None, default=None
        Share of the penalised weights that iterative pruning leaves, to within one
        weight; None and 1 prune nothing. The smallest weights of all layers together
        go, but the largest of each layer stays; of equal ones the first stay. They are
        held at exactly zero from then on.
    pruning_rounds : int, default=5
        Number of rounds of pruning; each keeps the same share of what is left.
    pruning_start : float in [0, 1), default=0.4
        Share of `max_epochs` before the first round. The other epochs are shared out
        equally between the rounds, for fine-tuning.
    module_params, hidden_layer_sizes, image_shape
    max_epochs, batch_size, optimizer, learning_rate, momentum, weight_decay
    lr_schedule, class_weight, early_stopping, validation_fraction
    n_iter_no_change, callbacks, device, dtype, warm_start, random_state, verbose
        Common to all estimators: see
        :class:`~sklearn_structreg.core.StructuredClassifier`.

    Attributes
    ----------
    sparsity_ : float
        Fraction of exact zeros among the penalised weights.
    n_parameters_ : int
        Learnable parameters, biases included.
    n_nonzero_parameters_ : int
        Those of them that are not zero.
    feature_importances_ : ndarray of shape (n_features,)
        For each input feature the norm of the first layer's weights that leave it; 0
        means that the network does not use it. With `SelectFromModel` give a
        ``threshold`` next to zero, such as 1e-5, to keep all that are used. A pixel
        under a convolution counts every position of the kernel that covers it, so that
        pixels differ little but at the border.
    history_ : skorch.history.History
        Holds ``sparsity`` and ``layer_sparsity`` (a dict per weight) of every epoch.
    classes_, n_features_in_, feature_names_in_, input_shape_, net_, module_, n_iter_
        Common to all estimators.

    See Also
    --------
    CGESProx : The same penalty as a callback of a skorch net of your own.
    IterativePruning : The same pruning as a callback of a skorch net of your own.

    Notes
    -----
    The step after which the operators run moved the weights by the learning rate times
    a direction that momentum has made up to 1/(1 - momentum) times the gradient, while
    the operators take the bare learning rate: what the training settles at is the
    minimum for (1 - momentum) * alpha. With Adam the direction's scale differs from
    weight to weight, and so does the effective strength. Plain SGD has neither.

    With `target_density`, `partial_fit` counts its calls as the epochs. A warm start
    keeps what the last fit has pruned and prunes on from there, unless `target_density`
    is now larger than what is left: then it begins again with all weights. Early
    stopping looks only at the epochs after the last round. A network compacted in place
    keeps the zeros that are left, and is not pruned again for the same target.

    References
    ----------
    J. Yoon, "Combined Group and Exclusive Sparsity for Deep Neural Networks",
    master's thesis, UNIST, 2018: section 3, Eqs. 3-8 and Algorithm 1.

    S. Han, J. Pool, J. Tran, W. J. Dally, "Learning both weights and connections for
    efficient neural networks", NIPS 2015: iterative pruning.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_structreg import CGESClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = CGESClassifier(alpha=0.05, max_epochs=20, random_state=0)
    >>> model = make_pipeline(StandardScaler(), net).fit(X, y)
    >>> model.score(X, y) > 0.95, net.sparsity_ > 0.1
    (True, True)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **StructuredClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left")],
        "penalty": [StrOptions({"cges", "group", "exclusive", "l1", "l2"})],
        "exclusivity": [Interval(Real, 0, 1, closed="both")],
        "groups": [StrOptions({"feature", "filter"})],
        "prox": [StrOptions({"exact", "paper"})],
        "prox_every": [Interval(Integral, 1, None, closed="left")],
        "layer_scale": [StrOptions({"auto"}), "array-like", None],
        "target_density": [Interval(Real, 0, 1, closed="right"), None],
        "pruning_rounds": [Interval(Integral, 1, None, closed="left")],
        "pruning_start": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        module: ModuleLike = "auto",
        *,
        alpha: float = 1e-4,
        penalty: str = "cges",
        exclusivity: float = 0.2,
        groups: str = "feature",
        prox: str = "exact",
        prox_every: int = 1,
        layer_scale: LayerScale = "auto",
        target_density: float | None = None,
        pruning_rounds: int = 5,
        pruning_start: float = 0.4,
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
        self.alpha = alpha
        self.penalty = penalty
        self.exclusivity = exclusivity
        self.groups = groups
        self.prox = prox
        self.prox_every = prox_every
        self.layer_scale = layer_scale
        self.target_density = target_density
        self.pruning_rounds = pruning_rounds
        self.pruning_start = pruning_start

    def _make_regularizer(self) -> CGESRegularizer:
        return CGESRegularizer(
            self.alpha,
            self.penalty,
            exclusivity=self.exclusivity,
            groups=self.groups,
            prox=self.prox,
            prox_every=self.prox_every,
            layer_scale=self.layer_scale,
            pruner=self._make_pruner(),
        )

    def _make_pruner(self) -> Pruner | None:
        """Return the pruner, if any; after a warm start, with what is pruned."""
        if self.target_density in (None, 1):
            return None
        pruner = Pruner(self.target_density, self.pruning_rounds, self.pruning_start)
        if hasattr(self, "net_"):
            last = cast(CGESRegularizer, self.net_.regularizer).pruner
            if last is not None:
                pruner.pruned_ = dict(last.pruned_)
                pruner.compacted_ = last.compacted_
        return pruner

    @property
    def feature_importances_(self) -> NDArray[np.float64]:
        """Norms of the first layer's weights over the input features."""
        check_is_fitted(self, "net_")
        names = cast(CGESRegularizer, self.net_.regularizer).names
        return first_layer_norms(self.module_, names[0], self.input_shape_)

    @property
    def sparsity_(self) -> float:
        """Fraction of exact zeros among the penalised weights."""
        check_is_fitted(self, "net_")
        names = cast(CGESRegularizer, self.net_.regularizer).names
        return weight_sparsity(self.module_, names)[0]

    @property
    def n_parameters_(self) -> int:
        """Learnable parameters, biases included."""
        check_is_fitted(self, "net_")
        return count_parameters(self.module_)[0]

    @property
    def n_nonzero_parameters_(self) -> int:
        """Learnable parameters that are not zero."""
        check_is_fitted(self, "net_")
        return count_parameters(self.module_)[1]

    def compact(
        self, *, in_place: bool = False, unsupported: str = "raise"
    ) -> torch.nn.Module:
        """Return a physically smaller network with the same outputs.

        Units and channels that no layer reads go, and those that are constant are
        folded into biases: see :func:`~sklearn_structreg.compaction.compact`.

        Parameters
        ----------
        in_place : bool, default=False
            Whether the estimator takes up the smaller network, too. It predicts as
            before, `module_` and what is counted of it are smaller, and `partial_fit`
            and warm starts go on with the smaller network and a new optimizer.
        unsupported : {"raise", "keep"}, default="raise"
            What to do about layers that compaction has no rule for.

        Returns
        -------
        torch.nn.Module
            On the device of `module_`, in evaluation mode.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the network cannot be compacted; names the layer.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from sklearn_structreg import CGESClassifier
        >>> X, y = load_digits(return_X_y=True)
        >>> net = CGESClassifier(
        ...     alpha=0.1, penalty="group", max_epochs=20, random_state=0
        ... ).fit(X / 16, y)
        >>> smaller = net.compact()
        >>> smaller[0].out_features < net.module_[0].out_features
        True
        """
        check_is_fitted(self, "net_")
        parameter = next(self.module_.parameters())
        generator = torch.Generator().manual_seed(0)
        sample = torch.rand(2, *self.input_shape_, generator=generator)
        sample = sample.to(parameter.device, parameter.dtype)
        smaller = compact(self.module_, sample, unsupported=unsupported).eval()
        if in_place:
            regularizer = self._make_regularizer()
            net = make_net(
                self,
                regularizer.attach(copy.deepcopy(smaller), sample),
                regularizer,
                seed=self.net_.seed,
                n_batches=1,
            )
            net.history.extend(copy.deepcopy(self.history_))
            self.net_ = net
        return smaller

    def size_report(
        self,
        X: ArrayLike | Dataset[Any],
        *,
        batch_size: int = 128,
        n_repeats: int = 21,
        unsupported: str = "raise",
    ) -> SizeReport:
        """Report how large the network is: weights not zero, compacted, and latency.

        Parameters
        ----------
        X : as in `fit`
            Samples to run the network on.
        batch_size : int, default=128
            Latency is measured on the first so many samples at once.
        n_repeats : int, default=21
            How often the network and the compacted one are timed, in turns; 0 leaves
            latency out.
        unsupported : {"raise", "keep"}, default="raise"
            What to do about layers that compaction has no rule for.

        Returns
        -------
        SizeReport
            Prints as a table; see :func:`~sklearn_structreg.compaction.size_report`.
        """
        check_is_fitted(self, "net_")
        parameter = next(self.module_.parameters())
        dtype = str(parameter.dtype).removeprefix("torch.")
        samples, _ = check_samples(self, X, dtype=dtype, reset=False)
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r} must be a positive integer.")
        data = TrainingData.of(samples, np.zeros(len(samples), np.int64), None)
        batch = data.head(
            int(batch_size),
            input_shape=self.input_shape_,
            dtype=parameter.dtype,
            device=parameter.device,
        )
        return size_report(
            self.module_, batch, n_repeats=n_repeats, unsupported=unsupported
        )
