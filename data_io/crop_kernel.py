"""A normalised crop and its labels in one pass over the frame; compiled at first use, then kept on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import float32, njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def fill(
    image_out: NDArray[Any],
    labels_out: NDArray[Any],
    image: NDArray[Any],
    labels: NDArray[Any],
    corner: tuple[int, int],
    low: NDArray[Any],
    scale: NDArray[Any],
    clip: tuple[float, float],
) -> None:
    """Write (image - low) * scale, clipped, and the labels of the crop at a corner (y, x) px that lies in the frame.

    Parameters
    ----------
    image_out, labels_out
        `(C, S, S)` float32 and `(S, S)` int32.
    image, labels
        `(C, Y, X)` of any number and `(Y, X)` int32; Y >= y + S and X >= x + S, which is not checked.
    low, scale
        `(C,)` float32, per channel.
    clip
        Least and largest value.
    """
    (y, x), n = corner, labels_out.shape[0]
    least, largest = float32(clip[0]), float32(clip[1])
    for i in range(n):  # one row at a time, so that the compiler sees plain vectors
        to, of = labels_out[i], labels[y + i, x : x + n]
        for j in range(n):
            to[j] = of[j]
    for c in range(image_out.shape[0]):
        for i in range(n):
            out, grey = image_out[c, i], image[c, y + i, x : x + n]
            for j in range(n):
                value = (float32(grey[j]) - low[c]) * scale[c]
                value = least if value < least else value
                out[j] = largest if value > largest else value
