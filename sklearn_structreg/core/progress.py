"""A progress bar over a whole training, with the time that is left."""

from __future__ import annotations

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback
from tqdm.auto import tqdm

__all__ = ["TrainingBar"]

FIGURES = ("train_loss", "valid_loss")


class TrainingBar(Callback):
    """Advances with every mini-batch; shows the losses of the last epoch.

    Parameters
    ----------
    n_batches : int
        Mini-batches of an epoch, those of validation included.
    """

    def __init__(self, n_batches: int) -> None:
        self.n_batches = n_batches
        self.bar: Any = None

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Show the bar."""
        total = self.n_batches * net.n_epochs_to_train
        self.bar = tqdm(total=total, desc="Training", unit="batch")

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Take its place: a checkpoint may have brought epochs."""
        n_done = (len(net.history) - 1 - net._n_before) * self.n_batches
        if n_done > self.bar.n:
            self.bar.initial += n_done - self.bar.n
            self.bar.n = n_done

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Advance."""
        self.bar.update()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Show the losses."""
        row = net.history[-1]
        losses = {name: f"{row[name]:.4g}" for name in FIGURES if name in row}
        self.bar.set_postfix(losses, refresh=False)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Leave the bar as it is."""
        self.bar.close()
        self.bar = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "bar": None}
