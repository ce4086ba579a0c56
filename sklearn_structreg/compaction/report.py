"""One report on a network's size: by weights that are not zero, and physically."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from sklearn_structreg.compaction.compact import compact, simplified_copy
from sklearn_structreg.compaction.counting import (
    LayerCount,
    check_call,
    count_bytes,
    count_layers,
    count_multiply_adds,
    measure_latencies,
    uncompiled,
)

__all__ = ["LayerSize", "SizeReport", "size_report", "written"]

Row = list[str]


@dataclass(frozen=True, kw_only=True)
class LayerSize(LayerCount):
    """One layer in a `SizeReport`, with the same three counts."""

    name: str
    n_compact: int
    compact_flops: int


@dataclass(frozen=True)
class SizeReport:
    """The size of a network, counted in three ways that are easily confused.

    Prints as a table, also in notebooks. The counts are those of the network at
    prediction, with the layers of this package replaced by plain ones (see `compact`).

    Attributes
    ----------
    n_parameters, n_nonzero, n_compact : int
        Parameters of the network; those of them that are not zero; parameters of the
        compacted network.
    n_bytes, compact_bytes : int
        Sizes of safetensors files of the two networks.
    flops : int
        Floating-point operations per sample by `torch.utils.flop_counter`: two for each
        multiply-add of matrix products and convolutions.
    nonzero_flops : int
        Those of weights that are not zero: every weight of a linear or convolutional
        layer counts as often as it is used.
    compact_flops : int
        The same count as `flops` for the compacted network.
    latency, compact_latency : float or None
        Median time of a forward pass in seconds per batch, before and after
        compaction, measured in turns by `torch.utils.benchmark`; None where it was not
        measured.
    n_plain, plain_flops, plain_bytes, plain_latency : int, int, int, float or None
        The same of the plain network, which the method has not changed: an estimator's
        report has it. None where there is none.
    batch_size, device, n_threads : int, str, int
        Samples per batch; device and threads of the measurement.
    layers : tuple
        Every layer that has parameters: its ``name``, ``kind`` (class), and
        ``n_parameters``, ``n_nonzero``, ``n_compact``, ``flops``, ``nonzero_flops``
        and ``compact_flops``.
    left_out : tuple of str
        Names of weights that the method which makes the zeros does not reach.

    See Also
    --------
    size_report : Makes the report of a network.
    """

    n_parameters: int
    n_nonzero: int
    n_compact: int
    flops: int
    nonzero_flops: int
    compact_flops: int
    latency: float | None
    compact_latency: float | None
    batch_size: int
    device: str
    n_threads: int
    layers: tuple[LayerSize, ...]
    n_bytes: int
    compact_bytes: int
    n_plain: int | None = None
    plain_flops: int | None = None
    plain_bytes: int | None = None
    plain_latency: float | None = None
    left_out: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Convert all figures to plain Python objects, fit for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        totals, rows = _aligned(self._totals(), 1), _aligned(self._rows(), 2)
        return "\n".join([*totals, self._footnote(), "", *rows])

    def _repr_html_(self) -> str:
        note = f"<p>{html.escape(self._footnote())}</p>"
        return _html_table(self._totals(), 1) + note + _html_table(self._rows(), 2)

    def _footnote(self) -> str:
        left_out = f" Left out: {', '.join(self.left_out)}." if self.left_out else ""
        if self.latency is None:
            return f"FLOPs are per sample.{left_out}"
        threads = f", {self.n_threads} thread(s)" if self.device == "cpu" else ""
        return (
            f"FLOPs are per sample; latency per batch of {self.batch_size} on "
            f"{self.device}{threads}.{left_out}"
        )

    def measures(self) -> dict[str, tuple[float | None, ...]]:
        """Return every measure of the plain, the trained and the compacted network.

        Returns
        -------
        dict of str to tuple
            "parameters", "FLOPs", "file" in bytes, and "latency" in seconds.
        """
        return {
            "parameters": (self.n_plain, self.n_parameters, self.n_compact),
            "FLOPs": (self.plain_flops, self.flops, self.compact_flops),
            "file": (self.plain_bytes, self.n_bytes, self.compact_bytes),
            "latency": (self.plain_latency, self.latency, self.compact_latency),
        }

    def _totals(self) -> list[Row]:
        nonzero = {"parameters": self.n_nonzero, "FLOPs": self.nonzero_flops}
        with_plain = self.n_plain is not None
        table = [["", *["plain"] * with_plain, "trained"]]
        table[0] += [*[""] * with_plain, "not zero", "", "compacted", ""]
        for name, (plain, trained, compacted) in self.measures().items():
            if trained is None:
                continue
            row = [name, written(name, trained)]
            if with_plain:
                row[1:] = [written(name, plain), row[1], _percent(trained, plain)]
            whole = plain if with_plain else trained
            for part in (nonzero.get(name), compacted):
                row += [written(name, part), _percent(part, whole)]
            table.append(row)
        return table

    def _rows(self) -> list[Row]:
        shares = ["not zero", "compacted"]
        table = [["layer", "", "parameters", *shares, "FLOPs", *shares]]
        for layer in self.layers:
            row = [layer.name or "(network)", layer.kind]
            for total, *parts in (
                (layer.n_parameters, layer.n_nonzero, layer.n_compact),
                (layer.flops, layer.nonzero_flops, layer.compact_flops),
            ):
                row += [f"{total:,}", *(_percent(part, total) for part in parts)]
            table.append(row)
        return table


def size_report(
    module: nn.Module,
    sample_batch: Tensor,
    *,
    compacted: nn.Module | None = None,
    plain: nn.Module | None = None,
    n_repeats: int = 21,
    unsupported: str = "raise",
    left_out: Sequence[str] = (),
) -> SizeReport:
    """Report a network's size: all weights, those not zero, and compacted.

    Parameters
    ----------
    module : torch.nn.Module
        The network, with zeros in it; not changed.
    sample_batch : torch.Tensor of shape (n, ...)
        Samples on the module's device; latency is measured on all of them at once.
    compacted : torch.nn.Module or None, default=None
        The network that `compact` made of the module; None compacts it here.
    plain : torch.nn.Module or None, default=None
        The network without the method, to set the others against.
    n_repeats : int, default=21
        Measurements of each network, in turns; 0 leaves latency out.
    unsupported : {"raise", "keep"}, default="raise"
        As in `compact`.
    left_out : sequence of str, default=()
        Names of weights to note as left out; an estimator's `size_report` gives those
        that its penalty or pruning does not reach.

    Returns
    -------
    SizeReport

    Raises
    ------
    ValueError
        If the network cannot be compacted; names the layer.

    Notes
    -----
    The element-wise measure is the one of [1]_ (section 4): the share of weights that
    are not zero, each counted as often as it is used for FLOPs. Zeros alone make no
    network faster; the compacted columns and the latency show the gain.

    References
    ----------
    .. [1] J. Yoon, "Combined Group and Exclusive Sparsity for Deep Neural Networks",
       Master's thesis, UNIST, 2018.

    Examples
    --------
    >>> import torch
    >>> from sklearn_structreg.compaction import size_report
    >>> from sklearn_structreg.core import make_mlp
    >>> net = make_mlp(4, 2, (5,))
    >>> with torch.no_grad():
    ...     _ = net[2].weight[:, :3].zero_()
    >>> print(size_report(net, torch.zeros(8, 4), n_repeats=0))
                trained  not zero          compacted
    parameters       37        31  83.8 %         16  43.2 %
    FLOPs            60        48  80.0 %         24  40.0 %
    file         0.4 kB                       0.3 kB  77.7 %
    FLOPs are per sample.
    <BLANKLINE>
    layer          parameters  not zero  compacted  FLOPs  not zero  compacted
    0      Linear          25   100.0 %     40.0 %     40   100.0 %     40.0 %
    2      Linear          12    50.0 %     50.0 %     20    40.0 %     40.0 %
    """
    whole = isinstance(n_repeats, Integral) and not isinstance(n_repeats, bool)
    if not whole or n_repeats < 0:
        raise ValueError(f"n_repeats={n_repeats!r} must be an integer of at least 0.")
    check_call(module, sample_batch)
    if compacted is None:
        compacted = compact(module, sample_batch, unsupported=unsupported)
    check_call(compacted, sample_batch, "compacted")
    sample, dense_net = sample_batch[:1], simplified_copy(uncompiled(module))
    dense, small = count_layers(dense_net, sample), count_layers(compacted, sample)
    if small.keys() != dense.keys():
        raise ValueError(
            "compacted has other layers than module; pass the result of "
            "compact(module, ...), or None."
        )
    layers = tuple(
        LayerSize(
            **vars(layer),
            name=name,
            n_compact=small[name].n_parameters,
            compact_flops=small[name].flops,
        )
        for name, layer in dense.items()
    )
    flops = 2 * count_multiply_adds(dense_net, sample)
    zero_flops = sum(layer.flops - layer.nonzero_flops for layer in layers)
    networks = [module, compacted, *([] if plain is None else [plain])]
    latencies: list[float | None] = [None] * len(networks)
    if n_repeats:
        latencies = [*measure_latencies(networks, sample_batch, int(n_repeats))]
    of_plain: dict[str, Any] = {}
    if plain is not None:
        of_plain = {
            "n_plain": sum(p.numel() for p in plain.parameters()),
            "plain_flops": 2 * count_multiply_adds(plain, sample),
            "plain_bytes": count_bytes(plain),
            "plain_latency": latencies[2],
        }
    return SizeReport(
        n_parameters=sum(layer.n_parameters for layer in layers),
        n_nonzero=sum(layer.n_nonzero for layer in layers),
        n_compact=sum(layer.n_compact for layer in layers),
        flops=flops,
        nonzero_flops=flops - zero_flops,
        compact_flops=2 * count_multiply_adds(compacted, sample),
        latency=latencies[0],
        compact_latency=latencies[1],
        batch_size=len(sample_batch),
        device=str(sample_batch.device),
        n_threads=torch.get_num_threads(),
        layers=layers,
        n_bytes=count_bytes(dense_net),
        compact_bytes=count_bytes(compacted),
        **of_plain,
        left_out=tuple(left_out),
    )


def written(name: str, value: float | None) -> str:
    """Write a measure with its unit."""
    if value is None:
        return ""
    if name == "latency":
        return f"{1e3 * value:.3f} ms"
    return f"{value / 1e3:,.1f} kB" if name == "file" else f"{value:,}"


def _percent(part: float | None, whole: float | None) -> str:
    return f"{100 * part / whole:.1f} %" if whole and part is not None else ""


def _aligned(table: list[Row], n_words: int) -> list[str]:
    """Lay a table out: `n_words` columns to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        for i in range(n_words):
            cells[i] = row[i].ljust(widths[i])
        lines.append("  ".join(cells).rstrip())
    return lines


def _html_table(table: list[Row], n_words: int) -> str:
    lines: list[str] = []
    for i, row in enumerate(table):
        tag, left = "td" if i else "th", ["left"] * n_words
        lines += (
            "<tr>",
            *(
                f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
                for side, cell in zip_longest(left, row, fillvalue="right")
            ),
        )
    return f"<table>{''.join(lines)}</table>"
