"""Which functions `autocast` runs in which dtype, by device: PyTorch's lists, by the names of the functions here.

`LOWER` run in the region's dtype, `SINGLE` in float32, `PROMOTE` in the widest dtype of their operands; all others in
the dtypes that they get. A function that PyTorch makes from several operators stands where its operators do.
After `aten/src/ATen/autocast_mode.h` of PyTorch 2.13.
"""

from __future__ import annotations

LOWER, SINGLE, PROMOTE = "lower", "single", "promote"

_PRODUCTS = (
    *("conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("mm", "bmm", "matmul", "addmm", "addbmm", "baddbmm", "linear", "vecdot", "einsum", "chain_matmul", "multi_dot"),
    *("matrix_power", "prelu", "scaled_dot_product_attention", "lstm", "rnn_tanh", "rnn_relu"),
    *("rnn_tanh_cell", "rnn_relu_cell"),
)

_LOSSES = (
    *("binary_cross_entropy_with_logits", "cosine_embedding_loss", "cross_entropy", "hinge_embedding_loss"),
    *("huber_loss", "kl_div", "l1_loss", "margin_ranking_loss", "mse_loss", "multi_margin_loss", "nll_loss"),
    *("multilabel_margin_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss"),
)

_CPU_SINGLE = (
    *("avg_pool3d", "max_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool3d", "max_unpool2d", "max_unpool3d"),
    *("fractional_max_pool2d", "fractional_max_pool3d", "grid_sample", "grid_sampler", "grid_sampler_2d"),
    *("grid_sampler_3d", "mirrored_pad", "binary_cross_entropy", "ctc_loss", "cdist", "trace", "prod"),
    *("quantile", "nanquantile", "cholesky", "cholesky_ex", "cholesky_inverse", "cholesky_solve", "inverse", "inv"),
    *(
        "inv_ex",
        "pinverse",
        "lu_solve",
        "orgqr",
        "householder_product",
        "pinv",
        "ormqr",
        "geqrf",
        "qr",
        "svd",
        "svdvals",
    ),
    *("eigh", "eigvalsh", "solve", "lstsq", "cond", "matrix_rank", "tensorinv", "tensorsolve", "triangular_solve"),
)

_CUDA_SINGLE = (
    *("acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rdiv"),
    *("rsqrt", "sinh", "tan", "pow", "softplus", "layer_norm", "native_layer_norm", "rms_norm", "group_norm"),
    *("frobenius_norm", "nuclear_norm", "cosine_similarity", "dist", "pdist", "cdist", "renorm", "logsumexp"),
    *("interpolate", "prod", "softmax", "log_softmax", "cumprod", "cumsum", "vector_norm", "matrix_norm", "sum"),
    *("norm", "gaussian_nll_loss"),
)

LISTS: dict[str, dict[str, str]] = {
    "cpu": {
        **dict.fromkeys(_PRODUCTS, LOWER),
        **dict.fromkeys(("inner", "tensordot"), LOWER),
        **dict.fromkeys((*_LOSSES, *_CPU_SINGLE), SINGLE),
        **dict.fromkeys(("cat", "stack", "index_copy"), PROMOTE),
    },
    "cuda": {
        **dict.fromkeys((*_PRODUCTS, "addmv", "addr", "mv", "gru", "lstm_cell", "gru_cell"), LOWER),
        **dict.fromkeys((*_LOSSES, *_CUDA_SINGLE), SINGLE),
        **dict.fromkeys(("addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot", "inner"), PROMOTE),
        **dict.fromkeys(("grid_sample", "grid_sampler", "index_put", "tensordot", "scatter_add"), PROMOTE),
    },
}

# What PyTorch refuses, by device, with its words.
REFUSED: dict[str, dict[str, str]] = {
    "cpu": {},
    "cuda": {
        "binary_cross_entropy": "torch.nn.functional.binary_cross_entropy and torch.nn.BCELoss are unsafe to "
        "autocast.\n"
        "Many models use a sigmoid layer right before the binary cross entropy layer.\n"
        "In this case, combine the two layers using torch.nn.functional.binary_cross_entropy_with_logits\n"
        "or torch.nn.BCEWithLogitsLoss.  binary_cross_entropy_with_logits and BCEWithLogits are\n"
        "safe to autocast."
    },
}

# Functions of the lists as their definitions name them, where PyTorch has another name.
ALIASES = {
    "matrix_trace": "trace",
    "linalg_cholesky": "cholesky",
    "linalg_norm": "vector_norm",
    "linalg_qr": "qr",
    "linalg_svd": "svd",
    "linalg_vector_norm": "vector_norm",
    "adaptive_max_pool3d_with_indices": "adaptive_max_pool3d",
    "fractional_max_pool2d_with_indices": "fractional_max_pool2d",
    "fractional_max_pool3d_with_indices": "fractional_max_pool3d",
}
