"""The order in which Ray gets trials."""

from __future__ import annotations

from ray.tune.search import Searcher

from search.config import load
from search.feasibility import Feasibility
from search.queue import Queue
from search.space import Plan, TrialConfig, plan

CONFIG = load("demo", None, ["train.crop=128"])
PLAN: Plan = plan(CONFIG, examine=lambda cells: {cell: Feasibility(True, 128) for cell in cells})
FIRST, SECOND, THIRD = PLAN.trials[:3]


class Proposals:
    """Proposes what it was given, one at a time."""

    def __init__(self, *trials: TrialConfig) -> None:
        self.trials = list(trials)

    def next(self) -> list[TrialConfig]:
        return [self.trials.pop(0)] if self.trials else []


def same(trial: TrialConfig) -> TrialConfig:
    return trial


def queue_of(*trials: TrialConfig, **more: object) -> Queue:
    return Queue(trials, **({"may_start": lambda trial: True, "place": same} | more))  # type: ignore[arg-type]


def suggested(queue: Queue) -> str | None:
    answer = queue.suggest("ray's id")
    return answer["trial"]["id"] if isinstance(answer, dict) else answer


def test_trials_come_in_their_order_and_the_end_waits_for_those_under_way() -> None:
    queue = queue_of(FIRST, SECOND)
    assert [suggested(queue), suggested(queue)] == [FIRST.id, SECOND.id]
    assert suggested(queue) is None
    queue.ended(FIRST, "completed", "")
    assert suggested(queue) is None
    queue.ended(SECOND, "stopped", "")
    assert suggested(queue) == Searcher.FINISHED


def test_a_trial_put_back_comes_next() -> None:
    queue = queue_of(FIRST, SECOND, THIRD)
    suggested(queue)
    queue.put_back(FIRST)
    assert [suggested(queue), suggested(queue)] == [FIRST.id, SECOND.id]


def test_proposals_follow_the_planned_trials_one_by_one() -> None:
    queue = queue_of(FIRST, source=Proposals(SECOND, THIRD))
    assert [suggested(queue) for _ in range(4)] == [FIRST.id, SECOND.id, THIRD.id, None]


def test_what_the_budget_refuses_is_left_out_and_known() -> None:
    queue = queue_of(FIRST, SECOND, THIRD, may_start=lambda trial: trial is not SECOND)
    assert [suggested(queue), suggested(queue)] == [FIRST.id, THIRD.id]
    assert queue.refused


def test_no_more_is_proposed_once_the_budget_refuses() -> None:
    proposals = Proposals(FIRST, SECOND, THIRD)
    queue = queue_of(may_start=lambda trial: trial is FIRST, source=proposals)
    assert [suggested(queue), suggested(queue), suggested(queue)] == [FIRST.id, None, None]
    assert proposals.trials == [THIRD]


def test_what_comes_at_last_is_asked_for_when_all_others_have_ended() -> None:
    left = [SECOND]
    queue = queue_of(FIRST, at_last=lambda: [left.pop()] if left else [])
    assert [suggested(queue), suggested(queue)] == [FIRST.id, None]
    queue.ended(FIRST, "failed", "")
    assert [suggested(queue), suggested(queue)] == [SECOND.id, None]
    queue.ended(SECOND, "completed", "")
    assert suggested(queue) == Searcher.FINISHED
