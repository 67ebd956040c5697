"""The settings of a single trial by their short names, as a sweep gives them: ``architecture=unet loss=dice``."""

from __future__ import annotations

from data_io.errors import BadInput

SETTINGS = {
    "target": "space.targets=[{}]",
    "architecture": "space.architectures=[{}]",
    "encoder": "space.encoders=[{}]",
    "learning_rate": "space.learning_rate=[{}]",
    "weight_decay": "space.weight_decay=[{}]",
    "augmentation": "space.augmentation=[{}]",
    "seed": "space.seeds=[{}]",
    "epochs": "train.max_epochs={}",
}
"""Short names of a trial's settings, and the override of the configuration that each stands for."""
ALONE = ("space.mode=grid", "space.trials=null", "space.stardist_unet=false", "schedule.asha=false")


def overrides(given: list[str], *, resumed: bool = False) -> list[str]:
    """Return the overrides of a search of one trial; `given` may name its settings shortly, as a sweep does.

    One that is `resumed` is a search of one trial already.

    >>> overrides(["architecture=unet", "target=star", "loss=stardist", "train.crop=128"])[4:]
    ['space.architectures=[unet]', 'space.targets=[star]', 'space.losses={star: [stardist]}', 'train.crop=128']
    """
    named = dict(text.split("=", 1) for text in given if "=" in text and "." not in text.split("=", 1)[0])
    whole = [text for text in given if text.split("=", 1)[0] not in named]
    short = []
    for name, value in named.items():
        if name == "architecture" and value == "stardist_unet":
            short += ["space.architectures=[]", "space.stardist_unet=true"]
        elif name == "loss":
            if "target" not in named:
                raise BadInput(f"loss={value}: add target=two_class, three_class or star")
            short.append(f"space.losses={{{named['target']}: [{value}]}}")
        else:
            short.append(SETTINGS.get(name, f"{name}={{}}").format(value))
    return [*(() if resumed else ALONE), *short, *whole]
