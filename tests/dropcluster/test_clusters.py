"""Which channels have structure."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import (
    DBSCAN,
    AgglomerativeClustering,
    FeatureAgglomeration,
    KMeans,
)
from sklearn.feature_extraction.image import grid_to_graph

from sklearn_structreg.dropcluster import DropCluster2d, rena, spatial_hopkins
from sklearn_structreg.dropcluster.clusters import (
    count_profiles,
    find_clusters,
    mean_hopkins,
    pixel_graph,
    resolve_clusters,
)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 12),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_profiles_are_counted_as_numpy_counts_rows(seed, n, c, pixels, dtype):
    rng = np.random.default_rng(seed)
    # Few values, of both signs and zeros, so that many pixels are equal.
    maps = rng.choice([-1.0, -0.0, 0.0, 1.0, 1e-30], size=(n, c, pixels))
    expected = [len(np.unique(maps[:, i].T + 0.0, axis=0)) for i in range(c)]
    assert count_profiles(torch.tensor(maps, dtype=dtype)).tolist() == expected


def test_profiles_that_differ_by_two_signs_only():
    maps = torch.tensor([[[1.0, -1.0]], [[1.0, -1.0]]], dtype=torch.float64)
    assert count_profiles(maps).tolist() == [2]


def test_all_channels_are_clustered_and_the_dead_ones_marked():
    maps = torch.randn(6, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    maps[:, 1] = 7
    maps[:, 3, :, 1:] = 7  # five pixels are left, and the rest as a sixth
    labels, structured = find_clusters(maps, 7)
    assert torch.equal(labels, rena(maps, 7).labels)
    assert structured.tolist() == [True, False, True, False]
    assert find_clusters(maps, 6)[1].tolist() == [True, False, True, True]
    assert find_clusters(maps, 7, unstructured=None)[1].all()


def test_rows_of_weight_zero_make_no_pixels_different():
    maps = torch.zeros(3, 2, 4, 4)
    maps[2] = torch.arange(16.0).view(4, 4)  # absent
    maps[0, 0] = torch.arange(16.0).view(4, 4)
    weight = torch.tensor([1.0, 1.0, 0.0])
    _, structured = find_clusters(maps, 4, sample_weight=weight)
    assert structured.tolist() == [True, False]


def test_mean_hopkins_leaves_out_constant_images_and_counts_weights():
    maps = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    maps[1, 0], maps[:, 1] = 2, 2
    statistic = spatial_hopkins(maps, random_state=0)[:, 0].numpy()
    weight = np.array([1.0, 5.0, 2.0, 0.0])
    expected = (statistic[0] + 2 * statistic[2]) / 3
    mean = mean_hopkins(maps, torch.tensor(weight), random_state=0)
    assert mean[0].item() == pytest.approx(expected, rel=1e-6)
    assert mean[1].isnan()


def test_auto_is_the_papers_number_capped_by_a_quarter_of_the_pixels():
    cases = {1: 0, 2: 0, 3: 3, 8: 3, 15: 3, 16: 4, 59: 14, 60: 15, 1024: 15}
    assert {n: resolve_clusters("auto", n) for n in cases} == cases
    assert resolve_clusters(9, 9) == 9


def test_a_graph_of_ones_own():
    maps = torch.randn(20, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    lattice = grid_to_graph(4, 6)
    expected = rena(maps, 5).labels
    assert torch.equal(find_clusters(maps, 5, connectivity=lattice)[0], expected)
    # Masked voxels: the first two rows and the others never meet, the rest is apart.
    mask = np.ones((4, 6, 1), bool)
    mask[2], mask[3, 0] = False, False
    inside = np.flatnonzero(mask)
    graph = np.zeros((24, 24))
    graph[np.ix_(inside, inside)] = grid_to_graph(4, 6, 1, mask=mask).toarray()
    labels, _ = find_clusters(maps, 4, connectivity=graph)
    assert labels.shape == maps.shape[1:]
    for channel in labels.flatten(1):
        outside = channel[torch.from_numpy(~mask.ravel())]
        assert set(outside.tolist()) == {4}
        top, bottom = set(channel[:12].tolist()), set(channel[19:].tolist())
        assert top | bottom == {0, 1, 2, 3}
        assert not top & bottom
    with pytest.raises(ValueError, match="joins no two pixels"):
        pixel_graph(np.eye(24), 24)


def test_any_clusterer_with_labels():
    maps = torch.randn(20, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    maps[:, 1] = 0
    weight = torch.arange(20.0) % 3
    rows = maps.flatten(2).permute(1, 2, 0)[:, :, weight > 0].double()
    rows *= weight[weight > 0].double().sqrt()
    labels, structured = find_clusters(
        maps, 15, clusterer=AgglomerativeClustering(5), sample_weight=weight
    )
    for channel in (0, 2):
        expected = AgglomerativeClustering(5).fit(rows[channel].numpy()).labels_
        np.testing.assert_array_equal(labels[channel].flatten(), expected)
    assert (labels[1] == 0).all()
    assert structured.tolist() == [True, False, True]
    # Noise is a cluster, and channels need not have as many.
    maps[:, 2] /= 100
    noise = DBSCAN(eps=5.5, min_samples=2)
    labels, _ = find_clusters(maps, 15, clusterer=noise)
    n_clusters = labels.flatten(1).amax(1) + 1
    assert n_clusters[0] != n_clusters[2]
    layer = DropCluster2d(drop_rate=0.5, clusterer=noise)
    layer.update_clusters(maps)
    assert torch.equal(layer.cluster_labels, labels)
    drawn = {"clusterer": KMeans(4), "random_state": 1}
    means = [find_clusters(maps, 9, **drawn)[0] for _ in range(2)]
    assert torch.equal(*means)
    with pytest.raises(ValueError, match=r"labels_ of shape \(20,\) for 24 pixels"):
        find_clusters(maps, 15, clusterer=FeatureAgglomeration(5))
