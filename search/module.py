"""The thin Lightning module: network, loss, optimiser and the validation counts of an epoch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from search import targets

if TYPE_CHECKING:
    from search.losses import Loss
    from search.models import Network
    from search.space import TrialConfig

LOOK_EVERY = 16
"""Batches between two looks at the loss; each look waits for the GPU."""
WARM_UP = 0.1
"""Share of the steps over which the one-cycle learning rate rises."""
STABLE_WARM_UP, DECAY = 0.02, 0.2
"""Shares of the steps over which warmup_stable_decay rises and falls."""


class SegmentationModule(pl.LightningModule):
    """One network in training.

    Batches are (images ``(N, C, S, S)`` float32, target of `targets.encode`, labels ``(N, S, S)`` int32 or None).
    """

    def __init__(self, network: Network, loss: Loss, trial: TrialConfig, steps_per_epoch: int) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.trial = trial
        self.steps_per_epoch = steps_per_epoch
        self.train_losses: list[torch.Tensor] = []
        self.val_losses: list[float] = []
        self.overlap = targets.Overlap()
        self.calibration: list[torch.Tensor] = []

    def laid_out(self, images: torch.Tensor) -> torch.Tensor:
        """Return the images in the memory format of the trial."""
        return images.contiguous(memory_format=memory_format(self.trial))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Skip the rest of an epoch whose loss is no finite number any more; looked at every few batches.

        Several processes look at none: they have to go on, or end, together.
        """
        if self.trial.processes > 1 or not self.train_losses or batch_idx % LOOK_EVERY:
            return None
        return None if bool(torch.isfinite(self.train_losses[-1])) else -1

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor, Any]) -> torch.Tensor:
        """Loss of one batch."""
        images, target, _ = batch
        loss = self.loss(self.network(self.laid_out(images)), target)
        self.train_losses.append(loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Calibrate batch normalisation, then start the counts of an epoch."""
        calibrate(self.network, [self.laid_out(images.to(self.device)) for images in self.calibration])
        self.val_losses, self.overlap = [], targets.Overlap()

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        """Count one batch of validation crops."""
        images, target, labels = batch
        scores = self.network(self.laid_out(images)).float()
        self.val_losses.append(float(self.loss(scores, target)))
        targets.count(self.trial.target, scores, labels.cpu().numpy(), self.overlap, gap=self.trial.gap)

    def configure_optimizers(self) -> Any:
        """AdamW, with the trial's course of the learning rate per optimiser step."""
        trial = self.trial
        optimiser = torch.optim.AdamW(self.parameters(), lr=trial.learning_rate, weight_decay=trial.weight_decay)
        if trial.train.schedule == "constant":
            return optimiser
        total = trial.epochs * self.steps_per_epoch
        schedule: torch.optim.lr_scheduler.LRScheduler
        if trial.train.schedule == "one_cycle":
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimiser, max_lr=trial.learning_rate, total_steps=total + 1, pct_start=WARM_UP
            )
        else:
            schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(stable_factor, total=total))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def stable_factor(step: int, total: int) -> float:
    """Share of the peak learning rate at a step of warmup_stable_decay: a short rise, a plateau, a fall to 0.

    On the plateau it does not depend on `total`, so that trials that are to be compared early, or stopped, stand on
    equal terms with those that run on (Hu et al. 2024, "MiniCPM").

    >>> [round(stable_factor(step, 100), 2) for step in (0, 1, 50, 80, 90, 100)]
    [0.5, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    rise, fall = max(1, round(STABLE_WARM_UP * total)), max(1, round(DECAY * total))
    return max(0.0, min(1.0, (step + 1) / rise, (total - step) / fall))


@torch.no_grad()
def calibrate(network: torch.nn.Module, batches: list[torch.Tensor]) -> None:
    """Replace the running statistics of batch normalisation by their mean over `batches` of images.

    The running averages lag behind weights that still move fast; an early epoch judged with them says little about the
    network. The images must be drawn as in training: statistics of emptier crops would shift every layer. Without
    batches nothing changes.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    if not batches or not layers:
        return
    training = network.training
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    for images in batches:
        network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.train(training)


def memory_format(trial: TrialConfig) -> torch.memory_format:
    """Return how the maps of a trial lie in memory; "auto" is settled before the trials are made."""
    return torch.channels_last if trial.train.channels_last else torch.contiguous_format
