"""Pictures of pixels: what is tinted, what stays of a constant image, colours that grey print tells apart."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from analysis.figures import DASHES, MARKERS, Picture, looks
from analysis.pixels import EVEN, FOUND, INVENTED, MISSED, around, confusion, grey, outlines, probability, rgb


def pixels(picture: Picture) -> np.ndarray:
    """Decode a picture to `(Y, X, 3)`."""
    data = base64.b64decode(picture.src.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)


def lightness(colour: np.ndarray) -> float:
    """CIE L* of an sRGB colour, 0 to 100."""
    linear = np.where(colour / 255 <= 0.04045, colour / 255 / 12.92, ((colour / 255 + 0.055) / 1.055) ** 2.4)
    y = float(linear @ [0.2126, 0.7152, 0.0722])
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_right_and_wrong_pixels_differ_in_lightness_so_that_grey_print_tells_them() -> None:
    image = np.tile(np.linspace(0, 4000, 40), (40, 1)).astype(np.uint16)
    truth, pred = np.zeros((40, 40), int), np.zeros((40, 40), int)
    truth[:20], pred[10:30] = 1, 1
    drawn = pixels(confusion(image, truth, pred, "alt"))
    assert drawn.shape == (40, 40, 3)
    middle = {"missed": drawn[5, 20], "found": drawn[15, 20], "invented": drawn[25, 20], "neither": drawn[35, 20]}
    light = {name: lightness(colour) for name, colour in middle.items()}
    ordered = sorted(light, key=light.__getitem__)
    assert ordered == ["found", "invented", "neither", "missed"]
    assert min(np.diff(sorted(light.values()))) > 8
    for name, tint in (("missed", MISSED), ("found", FOUND), ("invented", INVENTED)):
        nearest = min((FOUND, MISSED, INVENTED), key=lambda t: float(np.abs(middle[name] - rgb(t)).sum()))
        assert nearest == tint


def test_outlines_are_drawn_in_their_colour_over_the_image() -> None:
    labels = np.zeros((20, 20), int)
    labels[5:15, 5:15] = 1
    drawn = pixels(outlines(np.arange(400).reshape(20, 20), [(labels, "#E69F00")], "alt", zoom=2))
    assert drawn.shape == (40, 40, 3)
    assert tuple(drawn[10, 20]) == rgb("#E69F00")
    assert len(set(drawn[20, 20])) == 1, "the inside stays grey"


def test_a_network_is_shown_with_its_own_outline_and_the_true_one() -> None:
    truth, own = np.zeros((20, 20), int), np.zeros((20, 20))
    truth[2:10, 2:10], own[8:18, 8:18] = 1, 0.9
    drawn = pixels(probability(np.zeros((20, 20)), own, truth, "alt", zoom=1)).reshape(-1, 3)
    found = {tuple(map(int, colour)) for colour in drawn}
    assert rgb("#E69F00") in found
    assert rgb("#56B4E9") in found


def test_an_even_image_is_grey_and_broken_values_are_dark() -> None:
    assert set(grey(np.full((4, 4), 7)).ravel()) == {EVEN}
    assert grey(np.array([[np.nan, 0.0, 1.0]]))[0, 0] == 0
    assert grey(np.full((2, 2), np.nan)).shape == (2, 2)
    assert grey(np.zeros((0, 0))).size == 0


def test_a_window_stays_inside_a_small_image() -> None:
    assert around(5, 5, 100, (20, 30)) == (slice(0, 20), slice(0, 30))
    assert around(99, 0, 10, (100, 100)) == (slice(90, 100), slice(0, 10))


def test_methods_differ_by_more_than_colour() -> None:
    given = looks([f"m{k}" for k in range(7)] + ["truth", "classical"])
    assert len({look.marker for look in given.values() if look.marker in MARKERS}) == 7
    assert len({(look.colour, look.marker) for look in given.values()}) == 9
    assert len({str(look.dash) for look in list(given.values())[:5]}) == len(DASHES)
