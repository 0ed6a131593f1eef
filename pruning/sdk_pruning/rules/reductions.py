"""Operations along some axes: what they sum, sort or normalise over stays whole; the other axes pass."""

from collections.abc import Sequence

from sdk_pruning.axis_labels import Axis, Labels, bare, freeze
from sdk_pruning.propagation import Operation, Rule

_REDUCING = [
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "linalg_vector_norm",
    "logsumexp",
    "max",
    "mean",
    "median",
    "min",
    "norm",
    "prod",
    "std",
    "quantile",
    "std_mean",
    "sum",
    "var",
    "var_mean",
    "nansum",
    "nanmean",
    "aminmax",
    "frobenius_norm",
    "mode",
]
_ALONG = [
    "argsort",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "log_softmax",
    "logcumsumexp",
    "softmax",
    "_softmax",
    "_log_softmax",
    "softmin",
    "sort",
    "topk",
]
_POOLING = [
    "_adaptive_avg_pool2d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "lp_pool1d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_pool2d_with_indices",
    "upsample_bicubic2d",
    "upsample_bilinear2d",
    "upsample_linear1d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "upsample_trilinear3d",
    "_upsample_bicubic2d_aa",
    "_upsample_bilinear2d_aa",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
    "lp_pool2d",
    "max_unpool2d",
]
_WHOLE = [
    "_thnn_fused_lstm_cell",
    "bincount",
    "cdist",
    "conv_tbc",
    "diag",
    "diagonal",
    "einsum",
    "embedding_bag",
    "fft_fft",
    "fft_ifft",
    "fft_irfft",
    "fft_rfft",
    "gather",
    "grid_sampler",
    "grid_sampler_2d",
    "grid_sampler_3d",
    "gru",
    "gru_cell",
    "im2col",
    "col2im",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "lstm",
    "lstm_cell",
    "masked_select",
    "multi_head_attention_forward",
    "nonzero",
    "one_hot",
    "quantize_per_tensor",
    "rnn_relu",
    "rnn_tanh",
    "rnn_relu_cell",
    "rnn_tanh_cell",
    "scatter",
    "scatter_add",
    "searchsorted",
    "take_along_dim",
    "tril",
    "triu",
    "unfold",
    "trilinear",
    "bilinear",
    "outer",
    "ger",
    "dot",
    "mv",
    "cross",
    "kron",
    "cosine_similarity",
    "pairwise_distance",
    "trace",
    "inverse",
    "linalg_inv",
    "select_scatter",
    "slice_scatter",
    "diagonal_scatter",
    "masked_scatter",
    "scatter_reduce",
    "put",
    "take",
    "unique_consecutive",
    "histc",
    "_weight_norm",
    "_weight_norm_interface",
    "local_response_norm",
    "affine_grid_generator",
    "tensordot",
    "chain_matmul",
    "fft_fft2",
    "fft_ifft2",
    "fft_rfft2",
    "fft_irfft2",
    "fft_fftn",
    "fft_ifftn",
    "stft",
    "istft",
]


def reduce(operation: Operation) -> Labels | list[Labels]:
    """Sums, means and norms over axes."""
    features = operation.labels()[0]
    given = operation.arguments.get("dim")
    dims = _dims(given, len(features.shape))
    _freeze_dims(operation, features, dims)
    results = operation.result if isinstance(operation.result, list | tuple) else [operation.result]
    kept = [_without(features, dims, tuple(result.shape)) for result in results]
    return kept if isinstance(operation.result, list | tuple) else kept[0]


def _dims(given: object, rank: int) -> set[int]:
    if isinstance(given, int):
        return {given % rank} if rank else set()
    if isinstance(given, Sequence) and given:
        return {dim % rank for dim in given}
    return set(range(rank))


def _freeze_dims(operation: Operation, features: Labels, dims: set[int]) -> None:
    for dim in dims:
        freeze(operation.ties, features.axes[dim], f"{operation.where} runs over it")


def _without(features: Labels, dims: set[int], shape: tuple[int, ...]) -> Labels:
    axes: list[Axis] = [() if index in dims else axis for index, axis in enumerate(features.axes)]
    if len(shape) != len(axes):
        axes = [axis for index, axis in enumerate(axes) if index not in dims]
    return Labels(shape, tuple(axes))


def along(operation: Operation) -> Labels | list[Labels]:
    """Softmax, cumulative sums and sorting: the shape stays."""
    features: Labels = operation.labels()[0]
    dim = operation.arguments.get("dim", -1)
    _freeze_dims(operation, features, _dims(dim, len(features.shape)))
    if isinstance(operation.result, list | tuple):
        return [_like(features, tuple(result.shape)) for result in operation.result]
    return _like(features, operation.shape)


def _like(features: Labels, shape: tuple[int, ...]) -> Labels:
    axes = tuple(
        axis if size == before else ()
        for axis, size, before in zip(features.axes, shape, features.shape, strict=True)
    )
    return Labels(shape, axes)


def pool(operation: Operation) -> Labels | list[Labels]:
    """Pooling and resizing of positions; batch and channels pass."""
    features: Labels = operation.arguments.get("self", operation.arguments.get("input"))
    first = 2 if len(features.shape) > 2 else 1
    spatial = set(range(first, len(features.shape)))
    _freeze_dims(operation, features, spatial)
    if isinstance(operation.result, list | tuple):
        return [_without(features, spatial, tuple(result.shape)) for result in operation.result]
    return _without(features, spatial, operation.shape)


def whole(operation: Operation) -> Labels | list[Labels]:
    """Known not to let channels go: everything that enters stays."""
    operation.ties.freeze(
        [atom for label in operation.labels() for atom in label.atoms], f"{operation.where} needs it whole"
    )
    if isinstance(operation.result, list | tuple):
        return [bare(result.shape) for result in operation.result]
    return bare(operation.shape)


RULES: dict[str, Rule] = {
    **dict.fromkeys(_REDUCING, reduce),
    **dict.fromkeys(_ALONG, along),
    **dict.fromkeys(_POOLING, pool),
    **dict.fromkeys(_WHOLE, whole),
}
