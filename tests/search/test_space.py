"""From a configuration to trials: the counts of the study's grid, order, references, infeasible cells."""

from __future__ import annotations

from collections import Counter

import pytest

from data_io.errors import BadInput
from search.config import Config, load
from search.feasibility import Feasibility
from search.space import between, of_winner, plan

NO_DILATION = {"vgg19", "inceptionresnetv2"}
RANDOM = ["space.mode=random", "space.trials=5", "schedule.references=[]", "train.crop=128"]


def study(cells: list[tuple[str, str]]) -> dict[tuple[str, str], Feasibility]:
    """Feasibility at 224 px as `feasibility.examine` finds it (its own test, marked slow, shows that)."""
    found = {}
    for architecture, encoder in cells:
        dilated = architecture in {"deeplabv3", "deeplabv3plus"}
        if encoder in NO_DILATION and dilated:
            found[architecture, encoder] = Feasibility(False, 224, None, "no dilated mode")
        elif encoder in NO_DILATION and architecture == "pan":
            found[architecture, encoder] = Feasibility(True, 256, 32, "output stride 32, 256-px crops: no dilated mode")
        else:
            found[architecture, encoder] = Feasibility(True, 224)
    return found


def test_the_search_preset_has_432_feasible_and_48_infeasible_cells() -> None:
    made = plan(load("search", None, ["train.crop=224"]), examine=study)
    cells = [t for t in made.trials if t.architecture != "stardist_unet"]
    assert len(cells) == 432
    assert len(made.infeasible) == 48
    assert Counter(t.target for t in cells) == {"two_class": 180, "three_class": 216, "star": 36}
    assert sum(t.crop == 256 for t in cells) == 24
    assert len(made.trials) == 433, "and StarDist's own U-Net"


def test_the_paper_preset_has_36_two_class_cells() -> None:
    made = plan(load("paper", None, []), examine=study)
    cells = [t for t in made.trials if t.target == "two_class"]
    assert len(cells) == 36
    assert {t.loss for t in cells} == {"dice"}
    assert {t.epochs for t in made.trials} == {1000}
    assert len([t for t in cells if t.crop == 256]) == 2


def test_the_paper_preset_ends_with_stardist_and_its_winner_as_three_class() -> None:
    config = load("paper", None, [])
    made = plan(config, examine=study)
    (stardist,) = [t for t in made.trials if t.target == "star"]
    assert (stardist.architecture, stardist.crop, stardist.reference) == ("stardist_unet", 256, True)
    assert made.trials[-1] == stardist
    best = next(t for t in made.trials if t.architecture == "pan" and t.encoder == "vgg19")
    runs = [of_winner(config, reference, best) for reference in made.of_winner]
    assert [run.id for run in runs] == [
        "three_class-pan-vgg19-dice-gap-reference",
        "three_class-pan-vgg19-dice-reference",
    ]
    assert {(run.crop, run.output_stride, run.target) for run in runs} == {(256, 32, "three_class")}
    assert [run.gap for run in runs] == [True, False]


@pytest.mark.parametrize(
    ("where", "at"), [("first", [0, 1]), ("last", [10, 11]), ("beside", [0, 6])], ids=["first", "last", "beside"]
)
def test_references_are_placed_where_asked(where: str, at: list[int]) -> None:
    star = "target: star, loss: stardist"
    references = f"[{{architecture: fpn, encoder: resnet18, {star}}}, {{architecture: stardist_unet, {star}}}]"
    config = load(
        "demo",
        None,
        [
            "train.crop=128",
            f"schedule.references={references}",
            f"schedule.references_placed={where}",
            "space.targets=[two_class]",
            "space.architectures=[unet, fpn, linknet, pan, manet]",
        ],
    )
    trials = plan(config, examine=study).trials
    assert len(trials) == 12
    assert [i for i, t in enumerate(trials) if t.reference] == at


def test_every_combination_drawn_is_trained_with_every_seed() -> None:
    config = load("demo", None, [*RANDOM, "space.seeds=[3, 4]", "space.learning_rate=[0.001, 0.01, 0.1]"])
    trials = plan(config, examine=study).trials
    assert len(trials) == 10
    kinds = Counter((t.target, t.architecture, t.encoder, t.loss, t.learning_rate) for t in trials)
    assert set(kinds.values()) == {2}
    assert Counter(t.seed for t in trials) == {3: 5, 4: 5}


def test_continuous_draws_lie_between_the_listed_values_and_are_the_same_again() -> None:
    config = load("demo", None, [*RANDOM, "space.continuous=true", "space.learning_rate=[0.0001, 0.01]"])
    trials = plan(config, examine=study).trials
    rates = [t.learning_rate for t in trials]
    assert len(set(rates)) == 5
    assert all(0.0001 < rate < 0.01 for rate in rates)
    assert trials == plan(config, examine=study).trials


def test_between_is_logarithmic_unless_a_value_is_zero() -> None:
    assert between((1e-4, 1e-2), 0.5) == pytest.approx(1e-3)
    assert between((0.0, 0.2), 0.5) == pytest.approx(0.1)
    assert between((0.1, 0.3), 0.5, logarithmic=False) == pytest.approx(0.2)


def test_ids_are_unique_and_stable() -> None:
    config = load("demo", None, ["space.seeds=[0, 1, 2]", "train.crop=128"])
    first, second = plan(config, examine=study), plan(config, examine=study)
    assert [t.id for t in first.trials] == [t.id for t in second.trials]
    assert len({t.id for t in first.trials}) == len(first.trials)


def test_smp_and_timm_encoders_of_one_name_are_two_trials() -> None:
    config = load("demo", None, ["space.encoders=[resnet18, tu-resnet18]", "schedule.references=[]", "train.crop=128"])
    trials = plan(config, examine=study).trials
    assert len({t.id for t in trials}) == len(trials) == 18


def test_the_demo_tries_three_architectures_two_encoders_and_three_targets() -> None:
    made = plan(load("demo", None, ["train.crop=128"]), examine=study)
    assert len({t.architecture for t in made.trials}) >= 3
    assert len({t.encoder for t in made.trials}) >= 2
    assert {t.target for t in made.trials} == {"two_class", "three_class", "star"}
    assert len(made.trials) == 18
    assert made.trials[0].reference


def test_a_reference_stands_for_its_own_cell_of_the_grid() -> None:
    trials = plan(load("demo", None, ["train.crop=128"]), examine=study).trials
    reference = next(t for t in trials if t.reference)
    same = [
        t
        for t in trials
        if (t.target, t.architecture, t.encoder) == (reference.target, reference.architecture, reference.encoder)
    ]
    assert same == [reference]


def test_a_longer_reference_runs_beside_its_cell() -> None:
    trials = plan(load("demo", None, ["train.crop=128", "schedule.reference_epochs=50"]), examine=study).trials
    assert len(trials) == 19
    assert trials[0].epochs == 50


@pytest.mark.parametrize("seed", [0, 1])
def test_random_mode_draws_without_repetition_and_by_seed(seed: int) -> None:
    def drawn(s: int) -> list[str]:
        config: Config = load("demo", None, ["space.mode=random", "space.trials=7", f"seed={s}", "train.crop=128"])
        return [t.id for t in plan(config, examine=study).trials if not t.reference]

    assert len(set(drawn(seed))) == 7
    assert drawn(seed) == drawn(seed)
    assert drawn(0) != drawn(1)


def test_a_continuous_draw_needs_something_to_draw_between() -> None:
    with pytest.raises(BadInput, match="list two"):
        load("demo", None, [*RANDOM, "space.continuous=true"])


def test_references_of_one_cell_on_crops_of_two_sizes_are_two_trials() -> None:
    cell = "architecture: pan, encoder: resnet34, target: star, loss: stardist"
    references = f"schedule.references=[{{{cell}}}, {{{cell}, crop: 192}}, {{{cell}, crop: 64}}]"
    made = plan(load("demo", None, [references, "train.crop=160"]), examine=_all_run)
    found = {t.id: t.crop for t in made.trials if t.reference}
    name = "star-pan-resnet34-stardist"
    assert found == {f"{name}-reference": 160, f"{name}-192px-reference": 192, f"{name}-128px-reference": 128}


def test_the_cells_that_run_are_counted_without_stardists_own_network() -> None:
    assert plan(load("search", None, ["train.crop=224"]), examine=study).feasible == 432
    assert plan(load("paper", None, []), examine=study).feasible == 36


def _all_run(cells: list[tuple[str, str]]) -> dict[tuple[str, str], Feasibility]:
    return {cell: Feasibility(True, 160, 16) for cell in cells}
