"""What is different from PyTorch on purpose or of necessity, for docs/pytorch.md: where, what, why."""

from __future__ import annotations

_PENDING = "checks of values are part of the recorded program"
_NO_COMPLEX = "there are no complex dtypes"
_LIMIT = "the limit is taken where PyTorch's formula divides by zero"

DIFFERENCES: tuple[tuple[str, str, str], ...] = (
    ("`compile`", "prints, warnings and log records of a captured call come once", "a replay runs no Python code"),
    (
        "`compile`",
        "not guarded: attributes given to arguments; files, the working folder and `sys.argv`; modules read by `vars` "
        "or `sys.modules`; memory that arguments or gradients share in a later call only",
        "guards would cost more than the calls",
    ),
    (
        "threads",
        "a history belongs to the thread that recorded it: another may compute with the same parameters, but not go on "
        "from a loss or an activation that requires gradients (UsageError)",
        "each thread records by itself",
    ),
    ("when work runs", "operations are recorded and run when a value is looked at", "so they can be compiled"),
    (
        "errors about values",
        "indices out of range, class numbers, singular matrices, negative rates: when looked at",
        _PENDING,
    ),
    ("dtypes", "no complex, unsigned 16/32/64-bit, 8-bit float or quantised types", "not written"),
    ("`linalg.eig`, `eigvals`", "UnsupportedError", _NO_COMPLEX),
    ("devices", "`cpu` and `cuda`; other devices can be named, using one raises", "graphc compiles for these"),
    (
        "random numbers",
        "other numbers than PyTorch's; a generator's state has 16 bytes",
        "they are counter-based (Threefry)",
    ),
    (
        "`save`, `load`",
        "a safetensors file with a JSON description; no pickle, no code",
        "loading a file never runs code",
    ),
    ("DLPack", "bfloat16 raises BufferError", "NumPy's protocol has no bfloat16"),
    (
        "memory order",
        "results are row-major; `_like` functions keep the order",
        "one layout a tensor; kernels choose their own",
    ),
    ("`resize_`", "growing leaves views on the old memory", "a storage does not grow"),
    (
        "views that overlap",
        "writing raises where elements of the written view overlap",
        "as PyTorch does, for more cases",
    ),
    ("`view(dtype)` of bool memory", "bytes written there become 0 or 1", "a bool is one of two values"),
    ("`amax`, `amin`, `aminmax`", "the gradient with NaN among the elements goes to the NaN elements", "PyTorch: NaN"),
    ("`std`, `norm` at 0", "second gradients are 0", _LIMIT),
    ("`sinc`, `logit`, `copysign`, `pow` at their edges", "second gradients are finite", _LIMIT),
    ("`eigh`, `svd` with equal values", "their pair is left out of the gradient", _LIMIT),
    ("`lstsq`", "always by the pseudo-inverse; `driver` decides which results come besides", "NumPy has one driver"),
    ("`lobpcg`", "all eigenvalues are computed; what steers an iteration has no effect", "nothing is iterated"),
    ("`ldl_factor` of a singular matrix", "LinAlgError, when looked at", "PyTorch: an internal assertion"),
    ("`einsum`", "the cheapest pair is contracted next", "PyTorch goes from left to right without opt_einsum"),
    ("`special.bessel_*`", "exact to a few ulp", "PyTorch is off by up to 1e-5"),
    (
        "`special.airy_ai`",
        "exact to a few ulp, 0 at infinity",
        "PyTorch is off by up to 2e-5 near -2.1; NaN at infinity",
    ),
    (
        "polynomials of `special` at NaN",
        "NaN for every degree above 0",
        "PyTorch: for some degrees what its compiler made of it",
    ),
    (
        "`torch.embedding_bag` with sums",
        "the second result is there",
        "PyTorch leaves it empty for float32",
    ),
    ("`get_num_interop_threads`", "1 until it is set", "programs run one at a time"),
    ("`set_flush_denormal`", "False: the smallest floats stay", "kernels keep them"),
    (
        "`use_deterministic_algorithms`, `backends.cudnn`",
        "kept, without effect",
        "results are the same in every run; there is no cuDNN",
    ),
    (
        "`set_float32_matmul_precision`, `backends.cuda.matmul.allow_tf32`",
        "on CUDA, convolutions of float32 follow the same switch as products: exact by default; `high` and `medium` "
        "let what is large enough use TF32",
        "kernels are our own",
    ),
    (
        "`autocast`",
        "`cache_enabled` has no effect; on the CPU LSTMs run in lower precision as a whole, GRUs in the dtypes given",
        "equal conversions are one value; layers have one form",
    ),
    (
        "`GradScaler.step` in a compiled function",
        "the optimizer's step is run, and its changes are kept where no gradient overflowed",
        "so that the whole step is one program",
    ),
    (
        "`cuda.manual_seed`, `cuda.get_rng_state`",
        "of the one generator of all devices",
        "random numbers are the same on every device",
    ),
    (
        "`cuda.Stream`, `cuda.Event`",
        "priorities have no effect; events are not shared between processes",
        "not written",
    ),
    ("`i0`, `i1` at infinity", "infinity", "PyTorch: NaN"),
    ("`bernoulli`, `poisson`, `normal` of tensors", "results do not require gradients", "theirs is zero"),
    ("`embedding(scale_grad_by_freq=True)`", "the second derivative has the scaling too", "PyTorch leaves it out"),
    ("`embedding(sparse=True)`", "UnsupportedError", "there are no sparse tensors"),
    ("`ctc_loss`", "second derivatives raise, as in PyTorch; `zero_infinity` alike", "computed on the host"),
    ("uninitialized parameters", "the error does not name the operation", "they raise when their memory is asked for"),
    (
        "`autograd.graph.saved_tensors_hooks`",
        "operations save what PyTorch's save, but composed ones may have other parts; the order may differ",
        "gradients are symbolic: what they read is packed",
    ),
    ("`autograd.graph.register_multi_grad_hook`", 'mode "all" calls at the end of the backward', "it is known then"),
    (
        "`autograd.forward_ad`",
        "what is made of a dual tensor requires gradients; `no_grad` ends a tangent",
        "the tangent is the derivative of the gradient",
    ),
    (
        "recurrent layers",
        "steps are unrolled: batches of the first lengths compile for a second or two; further lengths are run in "
        "pieces of 64, 16, 4 and 1 steps that all lengths share",
        "kernels know their shapes",
    ),
    (
        "`DataLoader`",
        "workers are forked; `multiprocessing_context` other than fork is refused",
        "datasets need not be picklable",
    ),
    ("`optim`", "`foreach`, `fused`, `capturable` have no effect", "steps are compiled as a whole"),
    ("`optim`", "`differentiable=True`: UnsupportedError", "no gradients flow through a step"),
    (
        "`distributions`",
        "parameters and values that are not allowed: ValueError when a result is looked at, which does not show them",
        _PENDING,
    ),
    (
        "`distributions.Gamma`, `Beta`, `Dirichlet` and their kin",
        "missing",
        "drawing from them takes a loop that ends by chance",
    ),
    (
        "`max_pool` of windows with several NaN",
        "the first one is the largest element",
        "PyTorch: the last one, and the first one in `max` and `argmax`",
    ),
    (
        "tensors of inference mode",
        "may be operands where gradients are recorded, also of operations that PyTorch would save them for",
        "gradients read values, which nobody can overwrite",
    ),
    ("`optim.Muon`", "steps agree to one or two digits", "its bf16 products are summed in another order"),
    (
        "`nn.DataParallel`, `DistributedDataParallel`, `DistributedSampler`",
        "runs the module; refused; wants `num_replicas` and `rank`",
        "there is one device and one process",
    ),
    ("`CIFAR10`, `CIFAR100`", "the binary version is read", "nothing is unpickled"),
    (
        "`compile`",
        "`dynamic`, `backend`, `mode` have no effect; `tune=seconds` searches schedules",
        "there is one compiler",
    ),
    (
        "messages of errors",
        "PyTorch's words and, behind them, the call, its shapes and dtypes and the user's line",
        "`error.message` is the text without the place",
    ),
    (
        "`grad_fn.next_functions`",
        "of functions that PyTorch makes from others (`cross_entropy`) and of `CopySlices`: other nodes between",
        "they are one operation here",
    ),
    (
        "hooks on the node of a view",
        "UsageError, also for `register_backward_hook` of a module that ends in a view",
        "views are no operations; `Tensor.register_hook` works",
    ),
    (
        "gradients of a leaf that is a view",
        "are kept when its memory is written through another detached tensor",
        "PyTorch loses them without a word",
    ),
    (
        "the result of `elu_`, `leaky_relu_` and the like written before `backward`",
        "no error: the gradient is that of the values of then",
        "gradients read other values than PyTorch's",
    ),
    (
        "`max`, `min`, `median`, `topk`, `kthvalue` of equal elements",
        "+0 is above -0; the first of equals is taken",
        "PyTorch takes either",
    ),
    ("`relu` of -0 in half precision", "+0", "PyTorch: -0, and +0 in float32"),
    (
        "`cholesky_solve`, `cholesky_inverse`",
        "the gradient has the triangle that is read",
        "PyTorch fills the other too",
    ),
    ("`nextafter`, `unique`, `histogram`, `bincount`", "results do not require gradients", "they have none"),
    ("`ldexp` with negative whole exponents", "the gradient is 2 ** exponent", "PyTorch: 0, an integer power"),
    (
        "names of gradient nodes",
        "`special.round`, `ndtr`, the older `norm`, `pairwise_distance`: others",
        "made of others",
    ),
    ("`ndarray op tensor`", "works, gives a tensor", "PyTorch raises for some"),
)

# Which functions use each operator that runs on the host.
HOST_NOTES: dict[str, str] = {
    "ctc_loss": "`nn.functional.ctc_loss`",
    "ctc_loss_slope": "the gradient of `nn.functional.ctc_loss`",
    "random_poisson": "`poisson`",
    "random_binomial": "`binomial`",
    "cholesky": "`linalg.cholesky` and what solves with it",
    "inverse": "`linalg.inv`, `inverse`",
    "solve": "`linalg.solve`, `linalg.tensorsolve`",
    "solve_triangular": "`linalg.solve_triangular`, `triangular_solve`, `cholesky_solve`, `lu_solve`",
    "lu": "`linalg.lu`, `linalg.lu_factor`, `lu`",
    "permutation": "`linalg.lu`, `linalg.lu_solve`, `lu_unpack`",
    "qr": "`linalg.qr`, `qr`",
    "geqrf": "`geqrf`",
    "ldl": "`linalg.ldl_factor`",
    "ldl_solve": "`linalg.ldl_solve`",
    "svd": "`linalg.svd`, `svd`",
    "svdvals": "`linalg.svdvals`, `linalg.cond`, `linalg.matrix_rank`, nuclear and spectral norms",
    "eigh": "`linalg.eigh`",
    "eigvalsh": "`linalg.eigvalsh`",
    "pseudo_inverse": "`linalg.pinv`, `linalg.lstsq`",
    "det": "`linalg.det`, `det`",
    "cofactors": "the gradient of `linalg.det`",
    "slogdet": "`linalg.slogdet`, `slogdet`, `logdet`",
    "matrix_exp": "`linalg.matrix_exp`",
    "orthogonal_polynomial": "`special.chebyshev_polynomial_t` and the like",
    "airy_ai": "`special.airy_ai`",
    "zeta": "`special.zeta`, `polygamma`",
    "gammainc": "`special.gammainc`, `igamma`",
    "gammaincc": "`special.gammaincc`, `igammac`",
}
