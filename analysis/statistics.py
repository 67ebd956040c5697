"""Comparison statistics that respect repeated measurement: cells seen again in many frames, frames shared by cells.

Small and own here: the cluster-robust t of a mean (Cameron, Gelbach & Miller 2011), Hodges-Lehmann, Cliff's delta,
Bland-Altman, Lin's CCC, ICC. Rank tests come from scipy. Every function takes plain arrays, drops values that are
not finite (and counts them), and gives NaN with a reason where a number would mislead.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from data_io.errors import BadInput

Array = NDArray[np.float64]
Clustering = Sequence[Hashable] | NDArray[Any]

FEWEST_CLUSTERS = 5
"""Below this number of clusters results are descriptive only: no interval, no p-value."""

FEWEST_A_SIDE = 3
"""Fewest replicates of either condition; with 2 against 10, Welch's test rejects a true null in 10 % of studies."""

EQUIVALENCE_MARGIN = 0.2
"""Bias below this many SD of the truth is called equivalent (two one-sided tests)."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its cluster-robust t interval; NaN with a `reason` where there is none.

    `clusters` holds the number of clusters of each clustering given, `df` = min(clusters) - 1.
    """

    mean: float
    se: float
    low: float
    high: float
    statistic: float
    df: int
    p: float
    n: int
    clusters: tuple[int, ...]
    dropped: int
    reason: str = ""

    @property
    def ci(self) -> tuple[float, float]:
        """The 95 % interval."""
        return self.low, self.high


def clustered_mean(
    values: ArrayLike, *clusterings: Clustering, level: float = 0.95, fewest: int = FEWEST_CLUSTERS
) -> Estimate:
    """Mean of `values`, t-tested against 0 with a one- or two-way cluster-robust standard error.

    V = V_first + V_second - V_both, each with the factor G / (G - 1); df = min(G) - 1. Where the difference is not
    positive the larger of V_first and V_second stands in.

    Parameters
    ----------
    values
        `(N,)` float; not finite ones are dropped and counted.
    clusterings
        None (every value its own cluster), one or two sequences of `N` cluster names.
    level
        Of the interval.
    fewest
        Number of clusters below which only the mean is given.

    Examples
    --------
    >>> cell, frame = [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]
    >>> clustered_mean([1, 2, 3, 2, 3, 4], cell, frame).reason
    '2 clusters; below 5 results are descriptive only'
    """
    x = np.asarray(values, dtype=float).ravel()
    keep = np.isfinite(x)
    dropped = int(np.count_nonzero(~keep))
    coded = [_codes(c) for c in clusterings] or [np.arange(len(x))]
    if any(len(c) != len(x) for c in coded):
        raise ValueError(f"clusterings: {[len(c) for c in coded]} names for {len(x)} values; give one name per value")
    x, coded = x[keep], [_codes(c[keep]) for c in coded]
    nan, n = float("nan"), len(x)
    groups = tuple(int(c.max()) + 1 if n else 0 for c in coded)
    mean = float(x.mean()) if n else nan
    reason = _why_untestable(x, min(groups), fewest)
    if reason:
        return Estimate(mean, nan, nan, nan, nan, max(min(groups) - 1, 0), nan, n, groups, dropped, reason)
    se = float(np.sqrt(_variance_of_mean(x - mean, coded)))
    df = min(groups) - 1
    if se <= 1e-12 * float(np.abs(x).max()):
        reason = "all clusters have the same mean"
        return Estimate(mean, nan, nan, nan, nan, df, nan, n, groups, dropped, reason)
    reach = float(stdtrit(df, 0.5 + level / 2)) * se
    t = mean / se
    return Estimate(mean, se, mean - reach, mean + reach, t, df, 2 * float(stdtr(df, -abs(t))), n, groups, dropped)


def clustered_difference(
    first: ArrayLike,
    second: ArrayLike,
    first_clusterings: Sequence[Clustering],
    second_clusterings: Sequence[Clustering],
    fewest: int = FEWEST_CLUSTERS,
) -> Estimate:
    """Mean of `first` minus mean of `second`, t-tested against 0, where both may have values in the same clusters.

    The two need not be as many: a method may have cells that the other lacks. Clusters of one name are one cluster.

    Parameters
    ----------
    first, second
        `(N,)`, `(M,)` float; not finite ones are dropped and counted.
    first_clusterings, second_clusterings
        One or two sequences of `N`, and as many of `M`, cluster names.
    fewest
        Number of clusters below which only the difference is given.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    shares = [np.isfinite(x) / max(int(np.isfinite(x).sum()), 1) for x in (a, b)]
    total = int(np.isfinite(a).sum() + np.isfinite(b).sum())
    parts = [
        sign * total * share * (x - np.mean(x[np.isfinite(x)])) if share.any() else x * np.nan
        for x, share, sign in ((a, shares[0], 1), (b, shares[1], -1))
    ]
    joined = [_joined(one, two) for one, two in zip(first_clusterings, second_clusterings, strict=True)]
    spread = clustered_mean(np.concatenate(parts), *joined, fewest=fewest)
    finite = [x[np.isfinite(x)] for x in (a, b)]
    gap = float(finite[0].mean() - finite[1].mean()) if min(map(len, finite)) else float("nan")
    if spread.reason:
        return replace(spread, mean=gap)
    reach, t = spread.high - spread.mean, gap / spread.se
    p = 2 * float(stdtr(spread.df, -abs(t)))
    return replace(spread, mean=gap, low=gap - reach, high=gap + reach, statistic=t, p=p)


def _joined(one: Clustering, two: Clustering) -> Clustering:
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return np.concatenate([one, two])
    return [*one, *two]


def _why_untestable(x: Array, fewest_groups: int, fewest: int) -> str:
    if not len(x):
        return "no values"
    if len(x) == 1:
        return "one value"
    if fewest_groups < fewest:
        noun = "cluster" if fewest_groups == 1 else "clusters"
        return f"{fewest_groups} {noun}; below {fewest} results are descriptive only"
    if np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())):
        return "all values are equal"
    return ""


def _variance_of_mean(residual: Array, coded: list[NDArray[np.int64]]) -> float:
    singles = [_one_way(residual, c) for c in coded]
    if len(coded) == 1:
        return singles[0]
    both = _one_way(residual, _codes(coded[0] * (int(coded[1].max()) + 1) + coded[1]))
    variance = singles[0] + singles[1] - both
    return variance if variance > 0 else max(singles)


def _one_way(residual: Array, codes: NDArray[np.int64]) -> float:
    sums = np.bincount(codes, weights=residual)
    g = len(sums)
    return float(g / (g - 1) * np.sum(sums**2) / len(residual) ** 2)


def _codes(names: Clustering) -> NDArray[np.int64]:
    """Give each cluster a number from 0 to G-1."""
    if isinstance(names, np.ndarray) and names.dtype.kind in "iub":
        return np.unique(names, return_inverse=True)[1].astype(np.int64)
    seen: dict[Hashable, int] = {}
    listed = names.tolist() if isinstance(names, np.ndarray) else names
    return np.fromiter((seen.setdefault(name, len(seen)) for name in listed), np.int64, len(names))


# --- two samples, ranks -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RankTest:
    """Pooled two-sample rank test; `a12` = P(X > Y) + P(X = Y) / 2, `delta` = 2 a12 - 1 (Cliff)."""

    statistic: float
    p: float
    a12: float
    delta: float


def mann_whitney(x: ArrayLike, y: ArrayLike, alternative: str = "two-sided") -> RankTest:
    """Mann-Whitney U of `x` against `y`, exact for small samples without ties.

    Examples
    --------
    Hollander & Wolfe (1973); R's ?wilcox.test prints W = 35, p-value = 0.1272.

    >>> x = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    >>> found = mann_whitney(x, [1.15, 0.88, 0.90, 0.74, 1.21], "greater")
    >>> found.statistic, round(found.p, 4), found.a12
    (35.0, 0.1272, 0.7)
    """
    from scipy.stats import mannwhitneyu

    a, b = _finite(x), _finite(y)
    if not len(a) or not len(b):
        return RankTest(*[float("nan")] * 4)
    u, p = mannwhitneyu(a, b, alternative=alternative)
    a12 = float(u) / (len(a) * len(b))
    return RankTest(float(u), float(p), a12, 2 * a12 - 1)


@dataclass(frozen=True)
class BrunnerMunzel:
    """Brunner-Munzel test; `estimate` = P(X < Y) + P(X = Y) / 2 with its interval."""

    statistic: float
    df: float
    p: float
    estimate: float
    low: float
    high: float


def brunner_munzel(x: ArrayLike, y: ArrayLike) -> BrunnerMunzel:
    """Brunner & Munzel (2000): ranks without assuming equal spread."""
    from scipy.stats import rankdata

    a, b = _finite(x), _finite(y)
    n, m = len(a), len(b)
    if min(n, m) < 2:
        return BrunnerMunzel(*[float("nan")] * 6)
    ranks = rankdata(np.concatenate([a, b]))
    mean_a, mean_b = ranks[:n].mean(), ranks[n:].mean()
    var_a = np.sum((ranks[:n] - rankdata(a) - mean_a + (n + 1) / 2) ** 2) / (n - 1)
    var_b = np.sum((ranks[n:] - rankdata(b) - mean_b + (m + 1) / 2) ** 2) / (m - 1)
    pooled = n * var_a + m * var_b
    if pooled == 0:
        nan = float("nan")
        return BrunnerMunzel(nan, nan, nan, float((mean_b - (m + 1) / 2) / n), nan, nan)
    statistic = n * m * (mean_b - mean_a) / ((n + m) * np.sqrt(pooled))
    df = pooled**2 / ((n * var_a) ** 2 / (n - 1) + (m * var_b) ** 2 / (m - 1))
    estimate = (mean_b - (m + 1) / 2) / n
    reach = stdtrit(df, 0.975) * np.sqrt(var_a / (n * m**2) + var_b / (m * n**2))
    p = 2 * stdtr(df, -abs(statistic))
    return BrunnerMunzel(*map(float, (statistic, df, p, estimate, estimate - reach, estimate + reach)))


def hodges_lehmann_shift(x: ArrayLike, y: ArrayLike) -> float:
    """Median of all differences `x_i - y_j` (exact up to 4 million pairs, then to 1e-6 of the spread)."""
    a, b = np.sort(_finite(x)), np.sort(_finite(y))
    if not len(a) or not len(b):
        return float("nan")
    if len(a) * len(b) <= 4_000_000:
        return float(np.median(a[:, None] - b[None, :]))
    return _bisect(lambda d: int(np.searchsorted(b, a - d).sum()), len(a) * len(b), a[0] - b[-1], a[-1] - b[0], a)


def pseudomedian(d: ArrayLike) -> float:
    """Hodges-Lehmann: median of the Walsh averages `(d_i + d_j) / 2`, `i <= j`."""
    x = np.sort(_finite(d))
    n = len(x)
    if not n:
        return float("nan")
    if n <= 2000:
        rows, cols = np.triu_indices(n)
        return float(np.median((x[rows] + x[cols]) / 2))

    def above(centre: float) -> int:
        ordered = int((n - np.searchsorted(x, 2 * centre - x, side="right")).sum())
        return (ordered + int(np.count_nonzero(x > centre))) // 2

    return _bisect(above, n * (n + 1) // 2, x[0], x[-1], x)


def _bisect(above: Callable[[float], int], total: int, low: float, high: float, sample: Array) -> float:
    """Value that half of `total` pairs exceed, by counting."""
    quartiles = np.subtract(*np.percentile(sample, [75, 25]))
    tolerance = 1e-6 * (float(quartiles) or float(high - low) or 1.0)
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if 2 * above(middle) > total else (low, middle)
    return float((low + high) / 2)


# --- paired ranks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon signed-rank test; `v_plus` sums the ranks of positive differences."""

    v_plus: float
    p: float
    rank_biserial: float
    n: int


def signed_rank(
    d: ArrayLike, alternative: str = "two-sided", zero_method: str = "wilcox", correction: bool = True
) -> SignedRank:
    """Wilcoxon signed-rank test of differences, with the matched-pairs rank-biserial correlation.

    Exact below 50 differences without ties or zeros (as in R), else by the normal approximation; zero differences are
    left out (`zero_method="wilcox"`) or ranked (`"pratt"`); `correction` is for continuity.

    Examples
    --------
    Hollander & Wolfe's depression scale; R prints V = 40, p-value = 0.01953.

    >>> x = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    >>> y = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    >>> found = signed_rank(x - y, "greater")
    >>> found.v_plus, round(found.p, 5), round(found.rank_biserial, 4)
    (40.0, 0.01953, 0.7778)
    """
    from scipy.stats import rankdata, wilcoxon

    x = _finite(d)
    nonzero = x[x != 0]
    if not len(nonzero):
        return SignedRank(0.0, float("nan"), 0.0, 0)
    exact = len(x) < 50 and len(nonzero) == len(x) and len(np.unique(np.abs(x))) == len(x)
    p = wilcoxon(
        x,
        alternative=alternative,
        zero_method=zero_method,
        correction=correction,
        method="exact" if exact else "asymptotic",
    ).pvalue
    ranks = rankdata(np.abs(nonzero))
    plus = float(ranks[nonzero > 0].sum())
    return SignedRank(plus, float(p), float(2 * plus / ranks.sum() - 1), len(nonzero))


# --- agreement ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BlandAltman:
    """Bias (first minus second) and 95 % limits of agreement, each with a clustered interval."""

    bias: Estimate
    sd: float
    lower: Estimate
    upper: Estimate


def bland_altman(first: ArrayLike, second: ArrayLike, *clusterings: Clustering) -> BlandAltman:
    """Bland & Altman (1986): bias +- 1.96 SD of the differences.

    The interval of the bias holds the true one in 95 % of simulated studies, those of the limits in 89 to 94 % with 5
    to 12 clusters, since few clusters show little of the spread between them.

    Examples
    --------
    >>> wright = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
    >>> mini = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
    >>> found = bland_altman(wright, mini)
    >>> round(found.bias.mean, 1), round(found.sd, 1)
    (-2.1, 38.8)
    """
    a, b = _paired(first, second)
    d = a - b
    kept = _finite(d)
    sd = float(kept.std(ddof=1)) if len(kept) > 1 else float("nan")
    centre = float(kept.mean()) if len(kept) else float("nan")
    spread = 1.96 * (sd + ((d - centre) ** 2 - np.mean((kept - centre) ** 2)) / (2 * sd)) if sd > 0 else 0.0 * d
    return BlandAltman(
        clustered_mean(d, *clusterings),
        sd,
        clustered_mean(d - spread, *clusterings),
        clustered_mean(d + spread, *clusterings),
    )


def ccc(x: ArrayLike, y: ArrayLike, *clusterings: Clustering) -> Estimate:
    """Lin's concordance correlation (moments over n).

    Its standard error comes from the clustered influence of each pair; interval and test are those of Fisher's z =
    atanh(ccc), whose standard error is se / (1 - ccc^2) (delta method), so that the interval stays within -1..1.
    """
    a, b = _paired(x, y)
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 2:
        return clustered_mean(np.full(len(a), np.nan), *clusterings)
    mean_a, mean_b = a[both].mean(), b[both].mean()
    cross = (a - mean_a) * (b - mean_b)
    scale = (
        (a - mean_a) ** 2
        + (b - mean_b) ** 2
        + (mean_a - mean_b) ** 2
        + 2 * (mean_a - mean_b) * (a - mean_a - b + mean_b)
    )
    top, bottom = 2 * cross[both].mean(), scale[both].mean()
    if bottom == 0:
        return clustered_mean(np.where(both, 1.0, np.nan), *clusterings)
    influence = top / bottom + (2 * cross - top - top / bottom * (scale - bottom)) / bottom
    found = clustered_mean(influence, *clusterings)
    left = 1 - found.mean**2
    if found.reason or left <= 0 or not found.se > 0:
        return found
    z, se = np.arctanh(found.mean), found.se / left
    low, high = np.tanh(z + stdtrit(found.df, 0.975) * se * np.array([-1, 1]))
    p = 2 * stdtr(found.df, -abs(z / se))
    return replace(found, low=float(low), high=float(high), statistic=float(z / se), p=float(p))


@dataclass(frozen=True)
class Icc:
    """The six intraclass correlations of Shrout & Fleiss (1979)."""

    icc1: float
    a1: float
    c1: float
    icc1k: float
    icc2k: float
    icc3k: float


def icc(table: ArrayLike) -> Icc:
    """Intraclass correlations of a `(targets, raters)` table without gaps; `a1` is absolute agreement, ICC(A,1).

    Examples
    --------
    Shrout & Fleiss (1979) print .17 .29 .71 .44 .62 .91.

    >>> found = icc([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    >>> [round(v, 2) for v in (found.icc1, found.a1, found.c1, found.icc1k, found.icc2k, found.icc3k)]
    [0.17, 0.29, 0.71, 0.44, 0.62, 0.91]
    """
    x = np.asarray(table, dtype=float)
    n, k = x.shape
    nan = float("nan")
    if n < 2 or k < 2 or not np.isfinite(x).all() or np.ptp(x) == 0:
        return Icc(nan, nan, nan, nan, nan, nan)
    grand, rows, cols = x.mean(), x.mean(axis=1), x.mean(axis=0)
    between = k * np.sum((rows - grand) ** 2) / (n - 1)
    within = np.sum((x - rows[:, None]) ** 2) / (n * (k - 1))
    rater = n * np.sum((cols - grand) ** 2) / (k - 1)
    error = np.sum((x - rows[:, None] - cols[None, :] + grand) ** 2) / ((n - 1) * (k - 1))
    return Icc(
        _divide(between - within, between + (k - 1) * within),
        _divide(between - error, between + (k - 1) * error + k * (rater - error) / n),
        _divide(between - error, between + (k - 1) * error),
        _divide(between - within, between),
        _divide(between - error, between + (rater - error) / n),
        _divide(between - error, between),
    )


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests; `p` is the larger of the two."""

    p: float
    t_low: float
    t_high: float
    df: int
    reason: str = ""


def tost(d: ArrayLike, margin: float, *clusterings: Clustering) -> Equivalence:
    """Test whether the mean of `d` lies inside +-`margin`, with a cluster-robust standard error."""
    found = clustered_mean(d, *clusterings)
    nan = float("nan")
    if found.reason or not margin > 0:
        return Equivalence(nan, nan, nan, found.df, found.reason or "the margin is not positive")
    low, high = (found.mean + margin) / found.se, (found.mean - margin) / found.se
    return Equivalence(float(max(stdtr(found.df, -low), stdtr(found.df, high))), low, high, found.df)


# --- clusters, replicates, many tests -----------------------------------------------------------------------------


def cluster_icc(values: ArrayLike, clusters: Clustering) -> float:
    """One-way ANOVA intraclass correlation: how alike values of one cluster are (unequal sizes allowed)."""
    x = np.asarray(values, dtype=float)
    keep = np.isfinite(x)
    codes = _codes(_codes(clusters)[keep])
    x = x[keep]
    sizes = np.bincount(codes) if len(codes) else np.zeros(0, dtype=np.int64)
    n, g = len(x), len(sizes)
    if g < 2 or n <= g:
        return float("nan")
    means = np.bincount(codes, weights=x) / sizes
    within = np.sum((x - means[codes]) ** 2) / (n - g)
    between = np.sum(sizes * (means - x.mean()) ** 2) / (g - 1)
    typical = (n - np.sum(sizes**2) / n) / (g - 1)
    return _divide(between - within, between + (typical - 1) * within)


def effective_n(values: ArrayLike, clusters: Clustering) -> float:
    """Count the independent values the clustered ones are worth: N / (1 + (m - 1) ICC), m the mean cluster size."""
    x = np.asarray(values, dtype=float)
    keep = np.isfinite(x)
    n = int(keep.sum())
    if not n:
        return 0.0
    size = n / len(np.unique(_codes(clusters)[keep]))
    rho = cluster_icc(x, clusters)
    return n / (1 + (size - 1) * max(rho, 0.0)) if np.isfinite(rho) else float("nan")


@dataclass(frozen=True)
class Independent:
    """Two conditions compared on the means of their independent replicates."""

    difference: float
    low: float
    high: float
    statistic: float
    df: float
    p: float
    p_permutation: float
    n: tuple[int, int]
    reason: str = ""


def independent(x: ArrayLike, y: ArrayLike) -> Independent:
    """Welch's t and an exact permutation test of replicate means, `x` minus `y`.

    `x` and `y` are one mean per independent replicate (patient, well, field), never single cells. The smallest
    two-sided permutation p with G replicates on each side is .10, .029, .008 for G = 3, 4, 5. Fewer than
    `FEWEST_A_SIDE` are described and not tested.
    """
    from scipy.stats import permutation_test, ttest_ind

    a, b = _finite(x), _finite(y)
    nan, sizes = float("nan"), (len(a), len(b))
    difference = float(a.mean() - b.mean()) if min(sizes) else nan
    if min(sizes) < FEWEST_A_SIDE:
        why = f"{sizes[0]} and {sizes[1]} replicates; below {FEWEST_A_SIDE} on a side results are descriptive only"
        return Independent(difference, nan, nan, nan, nan, nan, nan, sizes, why)
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        why = "replicate means do not vary within a condition"
        return Independent(difference, nan, nan, nan, nan, nan, nan, sizes, why)
    welch = ttest_ind(a, b, equal_var=False)
    low, high = welch.confidence_interval(0.95)
    shuffled = permutation_test(
        (a, b),
        lambda u, v, axis: np.mean(u, axis=axis) - np.mean(v, axis=axis),
        permutation_type="independent",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(0),
    )
    t, df, p = float(welch.statistic), float(welch.df), float(welch.pvalue)
    return Independent(difference, float(low), float(high), t, df, p, float(shuffled.pvalue), sizes)


def sign_flips(d: ArrayLike) -> float:
    """Two-sided permutation p of a mean difference of pairs: each pair may as well have had the other sign.

    Exact up to 13 pairs, then from 9999 random flips. The smallest p with G pairs is 2 / 2^G: .0625 for 5, .031 for 6.
    """
    from scipy.stats import permutation_test

    x = _finite(d)
    if len(x) < 2 or not x.any():
        return float("nan")
    found = permutation_test(
        (x,), np.mean, permutation_type="samples", vectorized=True, n_resamples=9999, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)


def holm(p: ArrayLike) -> Array:
    """Holm-adjusted p-values; NaN (not tested) stays NaN and does not count as a test."""

    def step(ordered: Array) -> Array:
        weights = np.arange(len(ordered), 0, -1)
        return np.maximum.accumulate(ordered * weights)

    return _adjust(p, step)


def benjamini_hochberg(p: ArrayLike) -> Array:
    """Benjamini-Hochberg-adjusted p-values; NaN (not tested) stays NaN and does not count as a test."""

    def step(ordered: Array) -> Array:
        scaled = ordered * len(ordered) / np.arange(1, len(ordered) + 1)
        return np.asarray(np.minimum.accumulate(scaled[::-1])[::-1])

    return _adjust(p, step)


def _adjust(p: ArrayLike, step: Callable[[Array], Array]) -> Array:
    raw = np.asarray(p, dtype=float)
    adjusted = np.full(raw.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(raw))
    order = tested[np.argsort(raw[tested], kind="stable")]
    adjusted[order] = np.minimum(step(raw[order]), 1.0)
    return adjusted


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[Array, Array]:
    a, b = np.asarray(first, dtype=float).ravel(), np.asarray(second, dtype=float).ravel()
    if len(a) != len(b):
        raise BadInput(f"pairs: {len(a)} and {len(b)} values; a pair is the same cell measured twice: match them first")
    return a, b


def _finite(values: ArrayLike) -> Array:
    x = np.asarray(values, dtype=float).ravel()
    return np.asarray(x[np.isfinite(x)])


def _divide(top: float, bottom: float) -> float:
    return float(top / bottom) if bottom else float("nan")
