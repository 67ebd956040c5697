"""The targets by name, their ceilings, and the fit of their decoding on validation frames."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

from data_io.errors import BadInput
from postprocess import star, three_class, two_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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
    GRID: dict[str, tuple[Any, ...]]
    Params: Any

    def encode(self, labels: Labels) -> Any:
        """Return the training target of instance labels."""

    def perfect(self, labels: Labels) -> Prediction:
        """Return the prediction of a network without error."""

    def decode(self, prediction: Prediction, params: Any) -> NDArray[np.int32]:
        """Return cells."""

    def sweep(self, prediction: Prediction) -> Iterator[tuple[Any, NDArray[np.int32]]]:
        """Yield every point of ``GRID`` with its cells."""


TARGETS: dict[str, Target] = {"two_class": two_class, "three_class": three_class, "star": star}  # type: ignore[dict-item]


@dataclass(frozen=True)
class Fit:
    """The decode parameters that score best, their score, and every point tried (parameters and ``value``)."""

    params: Any
    value: float
    curve: list[dict[str, Any]]


def target_named(name: str) -> Target:
    """Return the module of a target; an unknown name lists the choices."""
    if name not in TARGETS:
        raise BadInput(f"target {name!r}: unknown; choose from {', '.join(TARGETS)}")
    return TARGETS[name]


def params_from(target: str, values: Mapping[str, Any]) -> Any:
    """Return a target's ``Params`` from stored values; missing ones keep their default, unknown ones are refused."""
    kind = target_named(target).Params
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise BadInput(f"{target} decode parameters: unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return kind(**values)


def decode(target: str, prediction: Prediction, values: Mapping[str, Any]) -> NDArray[np.int32]:
    """Return the cells of a stored prediction with stored decode parameters, ``(Y, X)`` int32."""
    return target_named(target).decode(prediction, params_from(target, values))


def fit(target: str, predictions: Sequence[Prediction], truth: Sequence[Labels], score: Score) -> Fit:
    """Choose the decode parameters of a target on validation frames.

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
        The best point of the target's ``GRID``; among equals the default parameters, else the first.
    """
    if not predictions or len(predictions) != len(truth):
        raise BadInput(f"fit {target}: {len(predictions)} predictions, {len(truth)} truths; give one of each per frame")
    default = target_named(target).Params()
    best, best_rank, curve = default, (-math.inf, False), []
    for points in zip(*(target_named(target).sweep(prediction) for prediction in predictions), strict=True):
        params = points[0][0]
        value = float(score(truth, [cells for _, cells in points]))
        curve.append({**asdict(params), "value": value})
        rank = (-math.inf if math.isnan(value) else value, params == default)
        if rank > best_rank:
            best, best_rank = params, rank
    return Fit(best, best_rank[0], curve)


def ceiling(target: str, truth: Sequence[Labels], score: Score) -> Fit:
    """Return the best a target can reach: the fit on the predictions of a network without error."""
    return fit(target, [target_named(target).perfect(labels) for labels in truth], truth, score)
