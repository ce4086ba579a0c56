"""The state of a fit in a folder, after every epoch, and the way back to it."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skorch
import torch

from sklearn_structreg.core.data import TrainingData
from sklearn_structreg.core.device import resolve_device
from sklearn_structreg.core.fingerprint import fingerprint, fingerprint_of_samples
from sklearn_structreg.core.net_state import restore_training, training_state
from sklearn_structreg.core.processes import from_first
from sklearn_structreg.core.state_files import read_state, write_state
from sklearn_structreg.core.versions import versions

__all__ = ["Checkpoint", "Stage"]

FORMAT = "checkpoint 1"
LEFT_AFTER = 60.0  # seconds without a change, while a file is being written


class Checkpoint:
    """The folder of one fit: whose it is, and a file for each stage of the training.

    It need not exist; None keeps nothing. `identity` has fingerprints of the data and
    of all parameters that change the result. `seed` is that of a new fit; one that goes
    on has the seed that it began with. Another fit's folder is an error.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        identity: Mapping[str, str],
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder and self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"checkpoint={str(folder)!r} is a file; name a folder.")
        self.seed, self.identity = seed, dict(identity)
        if self.folder is not None:
            self.conditions = conditions(device)
            self._take_over(from_first(partial(_read, self._path("fit"))))

    @classmethod
    def of_fit(
        cls, estimator: Any, data: TrainingData, y: Any, sample_weight: Any, seed: int
    ) -> Checkpoint:
        """Open the folder that an estimator names, for these data."""
        if estimator.checkpoint is None:
            return cls(None, {}, seed)
        identity = identity_of(estimator, data, y, sample_weight)
        device = resolve_device(estimator.device).type
        return cls(estimator.checkpoint, identity, seed, device)

    def stage(self, name: str) -> Stage | None:
        """Return a stage of the training, for a net to keep its state in."""
        if self.folder is None:
            return None
        fit = fingerprint([self.identity, self.seed])[:16]
        return Stage(self, self._path(f"{name}-{fit}"))

    def subfolder(self, name: str) -> Path | None:
        """Return a folder for a fit inside of this one."""
        return None if self.folder is None else self.folder / name

    def begin(self) -> None:
        """Write down whose folder this is."""
        from_first(self._begin)

    def _begin(self) -> None:
        if self.folder is None or self._path("fit").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        names = "identity", "seed", "conditions"
        state = {name: getattr(self, name) for name in names}
        write_state(self._path("fit"), {"format": FORMAT, **state})

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.safetensors"

    def _take_over(self, found: dict[str, Any] | None) -> None:
        """Check whose folder it is, and clear what a killed process has left."""
        if found is None:
            return
        known, here = found["identity"], self.identity
        names = sorted(n for n in {*known, *here} if known.get(n) != here.get(n))
        if names:
            # A parameter of a component says more than the whole of it.
            names = [n for n in names if not any(m.startswith(f"{n}__") for m in names)]
            raise ValueError(
                f"checkpoint={str(self.folder)!r} holds another fit, which differs in "
                f"{', '.join(names)}; set that back to go on with it, give this fit "
                "a folder of its own, or delete the folder to start anew."
            )
        old, now = found["conditions"], self.conditions
        changed = [f"{n} {old.get(n)}" for n in now if old.get(n) != now[n]]
        if changed:
            warnings.warn(
                f"checkpoint={str(self.folder)!r} was made with {', '.join(changed)}, "
                "unlike now, so the fit may end otherwise in the last bits than "
                "uninterrupted.",
                UserWarning,
                stacklevel=7,
            )
        self.seed = found["seed"]
        for unfinished in self._path("fit").parent.glob(".*.safetensors.*.unfinished"):
            with suppress(FileNotFoundError):
                # A younger one may be of the same fit, started twice by mistake.
                if time.time() - unfinished.stat().st_mtime > LEFT_AFTER:
                    unfinished.unlink()


@dataclass(frozen=True)
class Stage:
    """One training of a fit, and the file of its state."""

    checkpoint: Checkpoint
    path: Path

    def run(self, net: Any, n_epochs: int, run_epoch: Callable[[], Any]) -> None:
        """Run those of so many epochs that there is no state of yet."""
        net._n_at_end = len(net.history) + n_epochs
        if self.restore(net):
            return
        while len(net.history) < net._n_at_end:
            try:
                run_epoch()
            except KeyboardInterrupt:  # early stopping, at the end of an epoch
                if "dur" in net.history[-1] and net._stop_requested:
                    self.write(net, ended=True)
                raise
            self.write(net)

    def restore(self, net: Any) -> bool:
        """Bring a net to the end of its last whole epoch; return whether it had ended.

        Callbacks have begun their training. A net without a file writes its first one:
        what cannot be written shows before any work is done.
        """
        state = from_first(partial(_read, self.path))
        if state is None:
            self.write(net)
            return False
        try:
            restore_training(net, state)
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"The state in {str(self.path)!r} does not fit the network "
                f"({str(error).splitlines()[0]}); delete the folder to start anew."
            ) from error
        return bool(state["ended"])

    def write(self, net: Any, *, ended: bool = False) -> None:
        """Write the state of a net at the end of an epoch."""
        self.checkpoint.begin()
        state = {"format": FORMAT, "ended": ended, **training_state(net)}
        from_first(partial(write_state, self.path, state))


def identity_of(
    estimator: Any, data: TrainingData, y: Any, sample_weight: Any
) -> dict[str, str]:
    """Return fingerprints of an estimator's data and parameters by name."""
    free, net = estimator._free_of_result, getattr(estimator, "net_", None)
    params = {k: v for k, v in estimator.get_params().items() if k not in free}
    y = data.target if y is None else y
    y = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
    return {
        **{name: fingerprint(value) for name, value in params.items()},
        "the class of the estimator": fingerprint(type(estimator)),
        "the network to go on from": fingerprint(getattr(net, "module_", None)),
        "X": fingerprint_of_samples(data.samples),
        "y": fingerprint(y),
        "sample_weight": fingerprint(
            None if sample_weight is None else np.asarray(sample_weight, np.float64)
        ),
        **({} if data.groups is None else {"groups": fingerprint(data.groups)}),
        **({} if data.held_out is None else {"eval_set": _of_data(data.held_out)}),
    }


def _of_data(data: TrainingData) -> str:
    """Return a fingerprint of samples, targets and weights."""
    samples = fingerprint_of_samples(data.samples)
    return fingerprint([samples, data.target, data.weight])


def conditions(device: str) -> dict[str, str]:
    """Return versions, threads and device: a result's last bits depend on them."""
    own = {"torch": torch.__version__, "numpy": np.__version__}
    own |= {"skorch": skorch.__version__, "threads": str(torch.get_num_threads())}
    return {**versions(), **own, "device": device}


def _read(path: Path) -> dict[str, Any] | None:
    """Read a file of a checkpoint; None if there is none."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = read_state(path)
        if state["format"] != FORMAT:
            raise ValueError("another format")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The file {str(path)!r} is damaged, or not of a checkpoint that this "
            f"version can read; delete the folder {str(path.parent)!r} to start anew."
        ) from error
    return state
