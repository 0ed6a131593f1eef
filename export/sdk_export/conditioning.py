"""Which outputs of a draw say something about a program, and which only about rounding.

A norm of an input that is the same everywhere divides rounding errors by almost nothing; a top-k of equal
values may name any of them. There eager PyTorch itself answers otherwise when its inputs move by a rounding
error, and a right program would be refused by chance.
"""

import numpy as np

from sdk_export.captured import Arrays, Reference
from sdk_runtimes.errors import SampleInputsError
from sdk_runtimes.feeds import Array
from sdk_runtimes.quality import compare, rms

_NUDGE = 1e-7  # of the sample's own size: about one rounding of fp32
_STEADY = 1e-5  # a hundred roundings, and a tenth of what fp32 programs may be off


def steady_outputs(
    reference: Reference,
    samples: Arrays,
    feeds: Arrays,
    truth: Arrays,
    usual_rms: dict[str, float],
    seed: int,
) -> dict[str, Array]:
    """The outputs that eager keeps when the float inputs move by a rounding error.

    Args:
        reference: eager fp32.
        samples: the caller's inputs, which tell how large an input usually is.
        feeds: the draw.
        truth: what eager gives for it.
        usual_rms: root mean square of every float output on the samples.
        seed: of the noise.
    """
    generator = np.random.default_rng([seed, len(feeds)])
    nudged = {name: _nudged(array, samples[name], generator) for name, array in feeds.items()}
    try:
        again = reference(nudged)
    except SampleInputsError:
        return {}
    return {
        name: array
        for name, array in truth.items()
        if compare(array, again[name], usual_rms=usual_rms.get(name, 0.0)).rel_rmse <= _STEADY
    }


def _nudged(array: Array, sample: Array, generator: np.random.Generator) -> Array:
    if array.dtype.kind != "f":
        return array
    finite = sample[np.isfinite(sample)]
    noise = generator.standard_normal(array.shape) * (_NUDGE * rms(finite))
    return (array + noise).astype(array.dtype)
