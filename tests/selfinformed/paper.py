"""The paper's equations as plain loops, to hold the package against."""

import math


def top_k(scores, k):
    """Eq. 2 for one sample: class i is in if at most k classes score as high."""
    return [sum(other >= score for other in scores) <= k for score in scores]


def matrix_a(detected, truth, weights):
    """Eq. 3 (Eq. 4 with truth = detected): a_ij = E[M_i g_j], predictions in rows."""
    n_classes, total = len(detected[0]), sum(weights)
    a = [[0.0] * n_classes for _ in range(n_classes)]
    for m, g, weight in zip(detected, truth, weights, strict=True):
        for i in range(n_classes):
            for j in range(n_classes):
                a[i][j] += weight * m[i] * g[j] / total
    return a


def matrix_b(a):
    """B = A^T A."""
    n = len(a)
    return [
        [sum(a[i][j] * a[i][k] for i in range(n)) for k in range(n)] for j in range(n)
    ]


def normalised(b):
    """Ng, Jordan & Weiss, steps 1 and 2: zero diagonal, D^-1/2 B D^-1/2."""
    n = len(b)
    off = [[0.0 if j == k else b[j][k] for k in range(n)] for j in range(n)]
    degree = [sum(row) for row in off]
    return [
        [off[j][k] / math.sqrt(degree[j] * degree[k]) for k in range(n)]
        for j in range(n)
    ], degree
