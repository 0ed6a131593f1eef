"""Measures, on held-out halves, what forgetting did and what brings the classes back."""

import copy

import torch
from torch import Tensor, nn

from sdk_pruning.forgetting.calibrated_bn import reestimate_batch_norms_
from sdk_pruning.forgetting.labelled import Halves
from sdk_pruning.forgetting.logit_mask import mask_logits
from sdk_pruning.forgetting.measures import logits_of, observe, share_right
from sdk_pruning.forgetting.probe import train_probe
from sdk_pruning.forgetting.report import Accuracy, Assessment


def assess(model: nn.Module, edited: nn.Module, last: str, forget: Halves, retain: Halves) -> Assessment:
    """Compares the edited network with the one that came.

    Args:
        model: as it came.
        edited: after the edit.
        last: name of the layer that runs last; what it reads is probed.
        forget: probe data and held-out samples of the forgotten classes.
        retain: the same of the others; its fitted half re-estimates the batch norms.
    """
    was = _Look(model, last, forget, retain)
    now = _Look(edited, last, forget, retain)
    classes = forget.fit.classes
    masked = (mask_logits(each.logits, classes) for each in (was.forget, was.retain))
    return Assessment(
        before=was.accuracy(),
        after=now.accuracy(),
        batch_norm=recalled_by_batch_norm(edited, forget, retain),
        probe_before=was.probed(),
        probe_after=now.probed(),
        logit_mask=was.right(*masked),
    )


def recalled_by_batch_norm(edited: nn.Module, forget: Halves, retain: Halves) -> Accuracy | None:
    """Accuracy of a copy whose batch norms were re-estimated on retained samples; None where it has none."""
    again = copy.deepcopy(edited)
    if not reestimate_batch_norms_(again, retain.fit.inputs):
        return None
    judged = (forget.held_out, retain.held_out)
    return Accuracy(*(share_right(logits_of(again, each.inputs), each.labels) for each in judged))


class _Look:
    """One network on all halves."""

    def __init__(self, model: nn.Module, last: str, forget: Halves, retain: Halves) -> None:
        layer = model.get_submodule(last)
        self.sets = (forget, retain)
        self.fits = [observe(model, layer, each.fit.inputs) for each in self.sets]
        self.forget, self.retain = (observe(model, layer, each.held_out.inputs) for each in self.sets)

    def right(self, forget: Tensor, retain: Tensor) -> Accuracy:
        """Of logits on the held-out halves."""
        pairs = zip((forget, retain), self.sets, strict=True)
        return Accuracy(*(share_right(logits, half.held_out.labels) for logits, half in pairs))

    def accuracy(self) -> Accuracy:
        """Of the network."""
        return self.right(self.forget.logits, self.retain.logits)

    def probed(self) -> Accuracy:
        """Of a linear probe on what its last layer reads."""
        labels = torch.cat([each.fit.labels for each in self.sets])
        features = torch.cat([each.features for each in self.fits])
        probe = train_probe(features, labels, self.forget.logits.shape[1])
        return self.right(probe.logits(self.forget.features), probe.logits(self.retain.features))
