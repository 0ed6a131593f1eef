"""What forgetting did, and what it did not do."""

from dataclasses import dataclass

SUPPRESSED_SHARE = 0.1
"""At most this share of the forget accuracy before may be left, else nothing was suppressed."""
RECALL_SHARE = 0.5
"""The information is still there where the linear probe recalls at least this share of what it recalled
before, or where BN re-estimation brings back more than `SUPPRESSED_SHARE` of the forget accuracy before."""

NOT_SUPPRESSED = "not suppressed"
SUPPRESSION = "suppression"
SUPPRESSION_NOT_RECALLED = "suppression, not recalled by these tests"


@dataclass(frozen=True)
class Accuracy:
    """Shares of held-out samples that are named rightly, 0 to 1.

    Attributes:
        forget: of the forgotten classes.
        retain: of the others.
    """

    forget: float
    retain: float


@dataclass(frozen=True)
class Assessment:
    """Measured on the half of both sets that the edit has not seen.

    Attributes:
        before: of the network as it came.
        after: of the edited network.
        batch_norm: of the edited network after its batch norms were re-estimated on retained samples alone;
            None where it has none.
        probe_before: of a linear probe on what the last layer reads, as it came: forget is the recall.
        probe_after: the same on the edited network.
        logit_mask: of the network as it came with the logits of the classes forbidden; its probe is
            `probe_before`.
    """

    before: Accuracy
    after: Accuracy
    batch_norm: Accuracy | None
    probe_before: Accuracy
    probe_after: Accuracy
    logit_mask: Accuracy

    @property
    def batch_norm_recalls(self) -> bool:
        """Re-estimated batch norms bring the classes back."""
        return self.batch_norm is not None and self.batch_norm.forget > SUPPRESSED_SHARE * self.before.forget

    @property
    def probe_recalls(self) -> bool:
        """A linear probe finds the classes."""
        return self.probe_after.forget >= RECALL_SHARE * self.probe_before.forget

    @property
    def verdict(self) -> str:
        """One of three. No test here can show that information is gone, so nothing stronger is ever said."""
        if self.after.forget > SUPPRESSED_SHARE * self.before.forget:
            return NOT_SUPPRESSED
        return SUPPRESSION if self.batch_norm_recalls or self.probe_recalls else SUPPRESSION_NOT_RECALLED


@dataclass(frozen=True)
class ForgetReport:
    """What was done to which layers, and what it did.

    Attributes:
        method: "ridge" or "fidelity".
        strength: λ of the ridge, or the share of kernels of the fidelity method.
        edit: "ridge", "zeroed" or "negated".
        layers: names of the edited ones.
        classes: the forgotten ones.
        forget_samples: held out.
        retain_samples: held out.
        measured: on what was held out.
        verdict: "not suppressed", "suppression", or "suppression, not recalled by these tests".
    """

    method: str
    strength: float
    edit: str
    layers: tuple[str, ...]
    classes: tuple[int, ...]
    forget_samples: int
    retain_samples: int
    measured: Assessment
    verdict: str

    def __str__(self) -> str:
        classes = ", ".join(str(label) for label in self.classes)
        rows = [f"  {label:<26}{_percent(row)}" for label, row in _rows(self.measured)]
        lines = [
            f"forget class {classes}: {self.method}, strength {self.strength:g}, {self.edit}",
            f"layers: {', '.join(self.layers)}",
            f"held out: {self.forget_samples} samples to forget, {self.retain_samples} to retain",
            f"  {'':<26}{'forget':>9}{'retain':>9}",
            *rows,
            f"verdict: {self.verdict}: {explain(self.measured)}",
        ]
        return "\n".join(lines)


def explain(measured: Assessment) -> str:
    """Why the verdict is what it is, in one sentence."""
    found = []
    if measured.probe_recalls:
        found.append(f"a linear probe recalls {measured.probe_after.forget:.1%}")
    if measured.batch_norm is not None and measured.batch_norm_recalls:
        found.append(f"BN re-estimation brings back {measured.batch_norm.forget:.1%}")
    sentences = {
        NOT_SUPPRESSED: f"{measured.after.forget:.1%} of the forgotten samples are still named rightly",
        SUPPRESSION: f"the information is still there: {' and '.join(found)}",
        SUPPRESSION_NOT_RECALLED: "the probe and BN re-estimation do not find the classes; other attacks may",
    }
    return sentences[measured.verdict]


def _rows(measured: Assessment) -> list[tuple[str, Accuracy | None]]:
    return [
        ("before", measured.before),
        ("after", measured.after),
        ("after BN re-estimation", measured.batch_norm),
        ("linear probe, before", measured.probe_before),
        ("linear probe, after", measured.probe_after),
        ("logit mask (baseline)", measured.logit_mask),
    ]


def _percent(row: Accuracy | None) -> str:
    return f"{'no batch norm':>18}" if row is None else f"{row.forget:>9.1%}{row.retain:>9.1%}"
