"""The targets by name, their ceilings, and the fit of their decoding on validation frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Protocol

from data_io.errors import BadInput
from postprocess import star, three_class, two_class
from postprocess.sizes import drop_small, median_diameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from postprocess.prediction import Prediction

    Labels = NDArray[np.integer]
    Score = Callable[[Sequence[Labels], Sequence[Labels]], float]


class Target(Protocol):
    """What every target module offers."""

    CHANNELS: tuple[str, ...]
    RAYS: int
    STRIDE: int
    Params: Any

    def encode(self, labels: Labels) -> Any:
        """Return the training target of `(Y, X)` instance labels."""

    def perfect(self, labels: Labels) -> Prediction:
        """Return the prediction of a network without error for `(Y, X)` labels."""

    def decode(self, prediction: Prediction, params: Any) -> NDArray[np.int32]:
        """Return `(Y, X)` int32 cells, 0 background."""

    def grid(self, diameter: float) -> dict[str, tuple[Any, ...]]:
        """Return the values to try for cells of a median diameter in pixels."""

    def sweep(
        self, prediction: Prediction, values: Mapping[str, tuple[Any, ...]]
    ) -> Iterator[tuple[Any, NDArray[np.int32]]]:
        """Yield every combination of values but ``min_area``, which is left to the caller, with its cells."""


TARGETS: dict[str, Target] = {"two_class": two_class, "three_class": three_class, "star": star}  # type: ignore[dict-item]


@dataclass(frozen=True)
class Fit:
    """The decode parameters that score best, their score, and every point tried (parameters and ``value``)."""

    params: Any
    value: float
    curve: list[dict[str, Any]]


def target_named(name: str) -> Target:
    """Return the module of a target; for an unknown name BadInput lists the choices."""
    if name not in TARGETS:
        raise BadInput(f"target {name!r}: unknown; choose from {', '.join(TARGETS)}")
    return TARGETS[name]


def params_from(target: str, values: Mapping[str, Any]) -> Any:
    """Return a target's ``Params`` from stored values; missing ones keep their default, unknown ones are refused.

    Raises
    ------
    BadInput
        An unknown target or name, or a value of another kind than its default: a number, finite and of pixels not
        negative, or true or false.
    """
    kind = target_named(target).Params
    if not isinstance(values, Mapping):
        raise BadInput(f"{target} decode parameters: {values!r} is no table of names and values; fit them again")
    known = [field.name for field in fields(kind)]
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise BadInput(f"{target} decode parameters: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    default = kind()
    for name, value in values.items():
        if not _fits(value, getattr(default, name)):
            usual = f"{getattr(default, name)!r} by default"
            raise BadInput(f"{target} decode parameters: {name} is {value!r}, and {usual}; fit them again")
    return kind(**values)


def _fits(value: Any, default: bool | float) -> bool:
    """Say whether a stored value is of the kind of its default."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, int):
        return isinstance(value, Integral) and int(value) >= 0
    return isinstance(value, Real) and math.isfinite(value)


def decode(target: str, prediction: Prediction, values: Mapping[str, Any]) -> NDArray[np.int32]:
    """Return the cells of a stored prediction with stored decode parameters, ``(Y, X)`` int32."""
    return target_named(target).decode(prediction, params_from(target, values))


def fit(target: str, predictions: Sequence[Prediction], truth: Sequence[Labels], score: Score) -> Fit:
    """Choose the decode parameters of a target on validation frames.

    What is tried goes with the median size of the true cells, but the parameters are numbers of pixels: decoding needs
    no truth. Limits of cell area are tried once the rest is chosen with specks left out; should a larger limit do
    better, the rest is chosen again under it.

    Parameters
    ----------
    target
        A name of ``TARGETS``.
    predictions, truth
        One stored prediction and one ``(Y, X)`` label image per frame.
    score
        ``score(truth, cells) -> float``, larger is better; NaN never wins.

    Returns
    -------
    Fit
        The best point tried; among equals the default parameters, else the first.

    Raises
    ------
    BadInput
        No predictions, or not one for each truth.
    """
    if not predictions or len(predictions) != len(truth):
        raise BadInput(f"fit {target}: {len(predictions)} predictions, {len(truth)} truths; give one of each per frame")
    module = target_named(target)
    values, default = module.grid(median_diameter(truth)), module.Params()
    areas: tuple[int, ...] = values.get("min_area", ())
    curve: list[dict[str, Any]] = []
    best, best_rank = default, (-math.inf, False)

    def ranked(params: Any, cells: Sequence[NDArray[np.int32]], *, usual: bool) -> tuple[float, bool]:
        value = float(score(truth, cells))
        curve.append({**asdict(params), "value": value})
        return -math.inf if math.isnan(value) else value, usual

    def swept(area: int) -> list[NDArray[np.int32]]:
        nonlocal best, best_rank
        whole: list[NDArray[np.int32]] = []
        for points in zip(*(module.sweep(prediction, values) for prediction in predictions), strict=True):
            params, cells = points[0][0], [cells for _, cells in points]
            limited = replace(params, min_area=area) if area else params
            kept = [drop_small(each, area) for each in cells] if area else cells
            rank = ranked(limited, kept, usual=params == default)
            if rank > best_rank:
                best, best_rank, whole = limited, rank, cells
        return whole

    area = areas[1] if areas[1:] else 0
    whole = swept(area)
    best_rank = best_rank[0], False
    for other in (each for each in areas if each != area):
        params = replace(best, min_area=other)
        rank = ranked(params, [drop_small(each, other) for each in whole], usual=other == default.min_area)
        if rank > best_rank:
            best, best_rank = params, rank
    if areas and best.min_area > area:
        swept(best.min_area)
    return Fit(best, best_rank[0], curve)


def ceiling(target: str, truth: Sequence[Labels], score: Score) -> Fit:
    """Return the best a target can reach: the fit on the predictions of a network without error."""
    return fit(target, [target_named(target).perfect(labels) for labels in truth], truth, score)
