"""The mathematics written out in plain Python, slowly, to test against."""

from fractions import Fraction
from itertools import product


def rena_reference(X, edges, n_clusters, weights=None):
    """Section 3 of the paper, in exact rational arithmetic; returns the labels."""
    n_features = len(X[0])
    X = [[Fraction(float(value)) for value in row] for row in X]
    weights = (
        [Fraction(1)] * len(X) if weights is None else [Fraction(w) for w in weights]
    )
    clusters = [[feature] for feature in range(n_features)]
    means = [[row[feature] for row in X] for feature in range(n_features)]
    while len(clusters) > n_clusters:
        cluster_of = {f: c for c, members in enumerate(clusters) for f in members}
        links = {}
        for a, b in edges:
            a, b = sorted((cluster_of[a], cluster_of[b]))
            if a != b:
                pairs = zip(weights, means[a], means[b], strict=True)
                links[a, b] = sum(w * (x - y) ** 2 for w, x, y in pairs)
        chosen = set()
        for cluster in range(len(clusters)):
            own = [(d, edge) for edge, d in links.items() if cluster in edge]
            if own:
                chosen.add(min(own))
        if not chosen:
            break
        joined = [[cluster] for cluster in range(len(clusters))]
        for _, (a, b) in sorted(chosen)[: len(clusters) - n_clusters]:
            assert joined[a] is not joined[b], "nearest-neighbour links closed a cycle"
            parts = joined[a] + joined[b]
            for part in parts:
                joined[part] = parts
        groups = {id(parts): parts for parts in joined}.values()
        groups = sorted(groups, key=lambda parts: min(clusters[c][0] for c in parts))
        means = [
            [sum(means[c][i] for c in parts) / len(parts) for i in range(len(X))]
            for parts in groups
        ]
        clusters = [sorted(f for c in parts for f in clusters[c]) for parts in groups]
    labels = [0] * n_features
    for label, members in enumerate(clusters):
        for feature in members:
            labels[feature] = label
    return labels


def lattice_reference(shape):
    """Return pairs of neighbouring pixels, by comparing coordinates."""
    pixels = list(product(*map(range, shape)))
    return [
        (i, j)
        for i, p in enumerate(pixels)
        for j, q in enumerate(pixels)
        if i < j and sum(abs(a - b) for a, b in zip(p, q, strict=True)) == 1
    ]


def spatial_hopkins_reference(image, here, there):
    """Equations 3 to 5 for one image (a 2-D array) and given (row, column) pairs."""
    w, z = [], []
    for (x, y), (q, r) in zip(here, there, strict=True):
        neighbors = [
            image[x + i][y + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j
        ]
        assert len(neighbors) == 8
        w.append(sum(abs(image[x][y] - value) for value in neighbors) / 8)
        z.append(sum(abs(image[q][r] - value) for value in neighbors) / 8)
    return sum(z) / (sum(z) + sum(w))


def hopkins_reference(X, artificial, chosen, power):
    """Equation 2 for given artificial points and indices of actual ones."""

    def distance(a, b):
        return sum((s - t) ** 2 for s, t in zip(a, b, strict=True)) ** 0.5

    u = [min(distance(p, x) for x in X) ** power for p in artificial]
    w = [
        min(distance(X[i], x) for j, x in enumerate(X) if j != i) ** power
        for i in chosen
    ]
    return sum(u) / (sum(u) + sum(w))
