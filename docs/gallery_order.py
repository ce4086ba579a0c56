"""The order in which the gallery's examples are to be read."""

from pathlib import Path

ORDER = [
    "quickstart",
    "plot_feature_selection",
    "plot_export",
    "plot_compaction",
    "plot_pruning",
    "plot_dropcluster",
    "plot_resnet",
    "plot_blockout_hierarchy",
    "plot_self_informed",
    "plot_long_tail",
    "plot_confusion_partitioner",
    "plot_rena_pipeline",
    "plot_rena_hopkins_images",
    "plot_brain_volumes",
    "plot_own_network",
    "plot_resume",
    "plot_dask",
    "plot_images",
    "plot_text",
    "plot_files",
    "plot_stream",
    "plot_fine_tuning",
    "plot_callbacks",
]


class ReadingOrder:
    """Sort key of file names; those without a place come last, by name."""

    def __init__(self, folder):
        pass

    def __call__(self, filename):
        """Return the place of a file."""
        name = Path(filename).stem
        return (ORDER.index(name) if name in ORDER else len(ORDER)), name
