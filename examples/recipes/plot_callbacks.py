"""
Callbacks: TensorBoard, pruned searches, mlflow
===============================================

``callbacks`` takes those of skorch, and of all that works with it: here its logger for
TensorBoard, and Optuna's for searches that give up hopeless trainings early.
"""

import tempfile

import matplotlib.pyplot as plt
import optuna
import torch
from optuna_integration import SkorchPruningCallback
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import EpochScoring, TensorBoard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from sklearn_structreg import CGESClassifier

torch.set_num_threads(1)  # the network is small
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

# %%
# TensorBoard
# -----------
# All figures of the history go there, once an epoch: losses, accuracies, the sparsity
# of a penalty, and the scores of the callbacks before it. The command
# ``tensorboard --logdir FOLDER`` shows them in the browser.
folder = tempfile.TemporaryDirectory()  # "runs", for instance
writer = SummaryWriter(folder.name)
model = CGESClassifier(
    max_epochs=20,
    early_stopping=True,
    callbacks=[
        EpochScoring("f1_macro", lower_is_better=False, name="f1"),
        TensorBoard(writer),
    ],
    random_state=0,
)
model.fit(X_train, y_train)

events = EventAccumulator(folder.name).Reload()
print(*events.Tags()["scalars"])
print(f"F1 of the last epoch: {events.Scalars('f1')[-1].value:.3f}")
folder.cleanup()

# %%
# Optuna, with pruning
# --------------------
# After every epoch the callback reports a figure of the history, and ends a training
# that is worse than the median of those before it. The figure needs validation data:
# ``early_stopping=True``, or an ``eval_set``.


def objective(trial):
    """Train with suggested parameters; return the loss of held-out rows."""
    model = CGESClassifier(
        alpha=trial.suggest_float("alpha", 1e-3, 10, log=True),
        learning_rate=trial.suggest_float("learning_rate", 1e-3, 1, log=True),
        max_epochs=30,
        callbacks=[SkorchPruningCallback(trial, "valid_loss")],
        random_state=0,
    )
    model.fit(X_fit, y_fit, eval_set=(X_held, y_held))
    return model.history_[-1, "valid_loss"]


X_fit, X_held, y_fit, y_held = train_test_split(X_train, y_train, random_state=0)
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    sampler=optuna.samplers.TPESampler(seed=0),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=5),
)
study.optimize(objective, n_trials=25)

best = CGESClassifier(max_epochs=30, random_state=0, **study.best_params)
best.fit(X_train, y_train)
print(f"{study.best_params}: accuracy {best.score(X_test, y_test):.3f}")

# %%
# The grey trainings were ended early; the orange one is the best.
figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
n_epochs = 0
for trial in study.trials:
    losses = trial.intermediate_values
    n_epochs += len(losses)
    pruned = trial.state == optuna.trial.TrialState.PRUNED
    color = "0.7" if pruned else "tab:orange" if trial == study.best_trial else "C0"
    ax.plot(list(losses), list(losses.values()), color=color, zorder=1 + (not pruned))
print(f"{n_epochs} epochs in the place of {30 * len(study.trials)}")
ax.set(xlabel="epoch", ylabel="loss of held-out rows", yscale="log", ylim=(0.07, 5))
ax.set_yticks([0.1, 0.2, 0.5, 1, 2, 5], [0.1, 0.2, 0.5, 1, 2, 5])
ax.minorticks_off()
plt.show()

# %%
# mlflow
# ------
# Here it is not installed; skorch's logger writes the figures of every epoch to a run:
#
# .. code-block:: python
#
#     from skorch.callbacks import MlflowLogger
#
#     with mlflow.start_run():
#         CGESClassifier(callbacks=[MlflowLogger()]).fit(X_train, y_train)
