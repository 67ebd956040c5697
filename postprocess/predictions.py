"""predictions.zarr: what each method's network said about each frame; the hand-over from the GPU to the CPU stage.

Layout::

    predictions.zarr/
      zarr.json                            attributes "methods": names in order of adding
      <method>/zarr.json                   attributes "method": target, grid, channels, rays, fields and what add_method
                                           was given (decode, trial, model_sha256, ...)
      <method>/<slug>/probability          t, channel, y, x   uint8, probability times 255
      <method>/<slug>/distance             t, ray, y, x       float16, pixels (star only)
      <method>/<slug>/mark                 t                  uint32, set once a frame is whole
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io.damage import one_line
from data_io.errors import BadInput
from data_io.files import slug
from data_io.store import Field, FrameRef
from postprocess.frame_store import FrameStore
from postprocess.prediction import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postprocess.components import Box

DESCRIPTION = ("target", "grid", "channels", "rays", "fields")
"""What the arrays of a method were made for; a change empties the method."""
_AGAIN = "delete predictions.zarr and run `python -m search.predict` again"
MADE_BY = {"model_sha256": None, "tta": False}
"""Facts of how its frames were made, each with what an absent one means; another value empties the method too."""


def is_safe(method: str) -> bool:
    """Tell whether the name of a method may name a folder."""
    return slug(method) == method and method not in ("OME", "labels")


def _is_field(stored: Any) -> bool:
    """Tell whether this is what is kept of a field: name, safe folder, frames, height and width."""
    if not isinstance(stored, list) or len(stored) != 5:
        return False
    name, folder, *sizes = stored
    names = isinstance(name, str) and isinstance(folder, str) and slug(folder) == folder
    return names and all(isinstance(size, int) and size > 0 for size in sizes)


def _attribute(folder: Path, name: str, kind: type) -> Any:
    """Return an attribute of a Zarr group.

    Raises
    ------
    BadInput
        There is no group, or none that has it.
    """
    import zarr

    try:
        value = zarr.open_group(folder, mode="r").attrs[name]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as fault:
        raise BadInput(f"{folder}: damaged ({one_line(repr(fault))}); {_AGAIN}") from fault
    if not isinstance(value, kind):
        raise BadInput(f"{folder}: damaged ({name} is no {kind.__name__}); {_AGAIN}")
    return value


class PredictionStore:
    """Predictions of several methods on the frames of one data set; see `open_or_create`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stores: dict[tuple[str, str], FrameStore] = {}

    @classmethod
    def open_or_create(cls, path: Path | str) -> PredictionStore:
        """Open the store at a path, or make an empty one; raises BadInput where a folder of something else is."""
        import zarr

        path = Path(path)
        if not (path / "zarr.json").is_file():
            if path.exists() and any(path.iterdir()):
                raise BadInput(f"{path}: a folder without zarr.json is in the way; choose another path or delete it")
            zarr.create_group(path, attributes={"methods": []})
        return cls(path)

    @classmethod
    def open(cls, path: Path | str) -> PredictionStore:
        """Open an existing store; raises BadInput where there is none."""
        if not (Path(path) / "zarr.json").is_file():
            raise BadInput(f"{path}: no predictions there; write them with `python -m search.predict`")
        return cls(Path(path))

    def add_method(
        self,
        method: str,
        target: str,
        grid: int,
        channels: int,
        rays: int,
        fields: Iterable[Field],
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Make room for a method, or keep it with its frames if it is the same method of the same model.

        Parameters
        ----------
        method
            Name, a safe file name.
        target
            A name of `postprocess.methods.TARGETS`.
        grid, channels, rays
            Sampling step in pixels, number of probabilities, number of ray distances (0: none).
        fields
            The fields of the data set.
        attrs
            JSON facts to keep with it: ``decode`` (parameters), ``trial``, ``model_sha256``, ``split``, ...
            Another ``model_sha256`` or ``tta`` (test-time augmentation) than the stored one empties the method.
        """
        import zarr

        if not is_safe(method):
            raise BadInput(f"method {method!r}: not a safe file name; use {slug(method)!r}")
        fields = list(fields)
        described = {
            "target": target,
            "grid": grid,
            "channels": channels,
            "rays": rays,
            "fields": [[field.name, field.slug, field.n_frames, *field.shape] for field in fields],
        }
        attrs = dict(attrs or {})
        if method in self.methods():
            stored = self.attrs(method)
            made_so = {key: stored.get(key, absent) for key, absent in MADE_BY.items()}
            same_making = all(attrs.get(key, value) == value for key, value in made_so.items())
            if same_making and {key: stored[key] for key in DESCRIPTION} == described:
                self.set_attrs(method, **attrs)
                return
        self.remove_method(method)
        for field in fields:
            sampled = (-(-field.shape[0] // grid), -(-field.shape[1] // grid))
            arrays = {"probability": ((field.n_frames, channels, *sampled), "uint8", "tcyx")}
            if rays:
                arrays["distance"] = ((field.n_frames, rays, *sampled), "float16", "tcyx")
            FrameStore.create(self.path / method / field.slug, arrays)
        zarr.create_group(self.path / method, attributes={"method": {**described, **attrs}})
        self._list([*self.methods(), method])

    def remove_method(self, method: str) -> None:
        """Delete a method with its frames, if it is there."""
        self._list([name for name in self.methods() if name != method])
        self._stores = {key: store for key, store in self._stores.items() if key[0] != method}
        if method == slug(method):
            shutil.rmtree(self.path / method, ignore_errors=True)

    def methods(self) -> list[str]:
        """Return the names of the methods in order of adding; raises BadInput where one is no file name."""
        names: list[str] = _attribute(self.path, "methods", list)
        for name in names:
            if not isinstance(name, str) or not is_safe(name):
                raise BadInput(f"{self.path}: a method called {name!r}, which is no file name; {_AGAIN}")
        return names

    def attrs(self, method: str) -> dict[str, Any]:
        """Return the facts of a method; raises BadInput where it is not there or its facts are damaged."""
        if method not in self.methods():
            raise BadInput(f"{self.path}: no method {method!r}; it holds {', '.join(self.methods()) or 'none'}")
        facts: dict[str, Any] = _attribute(self.path / method, "method", dict)
        if missing := [name for name in DESCRIPTION if name not in facts]:
            raise BadInput(f"{self.path / method}: lacks {', '.join(missing)}; {_AGAIN}")
        if not all(_is_field(one) for one in facts["fields"]):
            raise BadInput(f"{self.path / method}: its fields are damaged; {_AGAIN}")
        return facts

    def set_attrs(self, method: str, **facts: Any) -> None:
        """Change facts of a method, the others stay."""
        import zarr

        zarr.open_group(self.path / method, mode="r+").attrs["method"] = {**self.attrs(method), **facts}

    def write(self, method: str, ref: FrameRef, prediction: Prediction) -> None:
        """Store the prediction of a frame; only then does the frame count."""
        values: dict[str, Any] = {"probability": prediction.probability}
        if prediction.distance is not None:
            values["distance"] = prediction.distance
        self._frames(method, ref.field).write(ref.frame, **values)

    def mark(self, method: str, ref: FrameRef) -> int:
        """Return the checksum of a stored frame, 0 if there is none."""
        return self._frames(method, ref.field).mark(ref.frame)

    def has(self, method: str, ref: FrameRef) -> bool:
        """Say whether a frame is stored whole."""
        return method in self.methods() and self.mark(method, ref) != 0

    def read(self, method: str, ref: FrameRef) -> Prediction:
        """Return the prediction of a frame; a missing or damaged one is refused."""
        facts = self.attrs(method)
        values = self._frames(method, ref.field).read(ref.frame)
        shape = next((y, x) for name, _, _, y, x in facts["fields"] if name == ref.field)
        return Prediction(values["probability"], values.get("distance"), facts["grid"], shape)

    def window(self, method: str, ref: FrameRef, box: Box) -> Prediction:
        """Return the prediction of a box of a frame, whose corner is at a multiple of the grid.

        Every chunk read has its own checksum; that of the whole frame is not looked at. Raises ValueError where the
        corner is not on the grid.
        """
        grid = int(self.attrs(method)["grid"])
        if box.y0 % grid or box.x0 % grid:
            raise ValueError(f"the corner of {box} is not on the grid of {grid} px")
        place = (slice(None), slice(box.y0 // grid, -(-box.y1 // grid)), slice(box.x0 // grid, -(-box.x1 // grid)))
        values = self._frames(method, ref.field).read_region(ref.frame, place)
        shape = (box.y1 - box.y0, box.x1 - box.x0)
        return Prediction(values["probability"], values.get("distance"), grid, shape)

    def frames(self, method: str) -> list[FrameRef]:
        """Return the frames stored whole, in order of field and time."""
        found = []
        for name, *_ in self.attrs(method)["fields"]:
            marks = self._frames(method, name).marks()
            found += [FrameRef(name, frame) for frame, mark in enumerate(marks) if mark]
        return found

    def _frames(self, method: str, field: str) -> FrameStore:
        if (method, field) not in self._stores:
            facts = self.attrs(method)
            slugs = {name: folder for name, folder, *_ in facts["fields"]}
            if field not in slugs:
                raise BadInput(f"{self.path}: {method} has no field {field!r}; it has {', '.join(slugs)}")
            names = ["probability", "distance"] if facts["rays"] else ["probability"]
            self._stores[method, field] = FrameStore(self.path / method / slugs[field], names)
        return self._stores[method, field]

    def _list(self, methods: list[str]) -> None:
        import zarr

        zarr.open_group(self.path, mode="r+").attrs["methods"] = methods
