"""Blockout: networks that learn their own hierarchical architecture."""

from sklearn_structreg.blockout.chain import linear_chain
from sklearn_structreg.blockout.classifier import BlockoutClassifier
from sklearn_structreg.blockout.conversion import (
    DropoutLinear,
    blockout_layers,
    convert,
    fold,
    insert_dropout,
    node_sets,
)
from sklearn_structreg.blockout.layer import BlockoutLinear, NodeSet
from sklearn_structreg.blockout.masks import (
    block_mask,
    draw_memberships,
    masked_linear,
    masked_weight,
)
from sklearn_structreg.blockout.recorder import ProbabilityRecorder
from sklearn_structreg.blockout.regularizer import (
    BlockoutRegularizer,
    DropoutRegularizer,
)

__all__ = [
    "BlockoutClassifier",
    "BlockoutLinear",
    "BlockoutRegularizer",
    "DropoutLinear",
    "DropoutRegularizer",
    "NodeSet",
    "ProbabilityRecorder",
    "block_mask",
    "blockout_layers",
    "convert",
    "draw_memberships",
    "fold",
    "insert_dropout",
    "linear_chain",
    "masked_linear",
    "masked_weight",
    "node_sets",
]
