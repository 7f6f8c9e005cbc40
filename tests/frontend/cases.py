"""Small programs over PyTorch's names. `record_torch.py` runs them with PyTorch and stores what they print; the tests
run them here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Case = Callable[[Any], Any]

CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def many(prefix: str, **functions: Case) -> None:
    for name, function in functions.items():
        CASES[f"{prefix}_{name}"] = function


def a(t: Any) -> Any:
    return t.tensor([[1.5, -2.0, 0.25], [0.0, 3.0, -0.5]])


def i(t: Any) -> Any:
    return t.tensor([[7, -7, 3], [2, 0, -1]])


def leaf(t: Any) -> Any:
    return t.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]], requires_grad=True)


many(
    "create",
    tensor_int=lambda t: t.tensor([1, 2, 3]),
    tensor_bool=lambda t: t.tensor([True, False]),
    tensor_nested=lambda t: t.tensor([[1.0, 2.0], [3.0, 4.5]]),
    tensor_empty=lambda t: t.tensor([]),
    tensor_empty_int=lambda t: t.zeros(0, 3, dtype=t.int64),
    scalar=lambda t: t.tensor(3.25),
    scalar_int=lambda t: t.tensor(3),
    double=lambda t: t.tensor([1.0], dtype=t.float64),
    half=lambda t: t.tensor([1.5, 2.25], dtype=t.float16),
    bf16=lambda t: t.tensor([1.5, 2.25], dtype=t.bfloat16),
    u8=lambda t: t.tensor([1, 255], dtype=t.uint8),
    zeros=lambda t: t.zeros(2, 3),
    ones_int=lambda t: t.ones((2,), dtype=t.int32),
    full=lambda t: t.full((2, 2), 7),
    full_float=lambda t: t.full((2,), 0.5),
    full_bool=lambda t: t.full((2,), True),
    eye=lambda t: t.eye(3),
    eye_wide=lambda t: t.eye(2, 3, dtype=t.int64),
    arange=lambda t: t.arange(5),
    arange_step=lambda t: t.arange(1, 10, 3),
    arange_float=lambda t: t.arange(0, 1, 0.1),
    arange_down=lambda t: t.arange(5, 0, -2),
    linspace=lambda t: t.linspace(0, 1, 5),
    like=lambda t: (t.zeros_like(i(t)), t.ones_like(a(t)), t.full_like(a(t), 3)),
    requires_grad=lambda t: t.tensor([1.0], requires_grad=True),
    dtypes=lambda t: [t.float32, t.int64, t.bool, t.bfloat16, t.uint8],
    shape=lambda t: t.zeros(2, 3).shape,
    size=lambda t: (t.zeros(2, 3).size(), t.zeros(2, 3).size(1), t.zeros(4, 5).numel(), t.zeros(2).dim()),
)
many(
    "print",
    wide=lambda t: t.arange(40.0),
    large=lambda t: t.arange(2000).view(50, 40),
    large_vector=lambda t: t.arange(1001),
    mixed=lambda t: t.tensor([1.0, 1e-3, 12345.678]),
    scientific=lambda t: t.tensor([1e10, 1.0, 1e-10]),
    special=lambda t: t.tensor([float("nan"), float("inf"), -float("inf"), 1.0]),
    special_whole=lambda t: t.tensor([float("nan"), 2.0]),
    small=lambda t: t.tensor([1e-5, 2e-5]),
    large_whole=lambda t: t.tensor([1e9, 1.0]),
    three=lambda t: t.arange(12.0).view(2, 2, 3),
    four=lambda t: t.zeros(1, 2, 1, 2),
    negative=lambda t: t.tensor([-1.5, 10.25]),
    grad_fn=lambda t: leaf(t) * 2,
    double_grad=lambda t: t.ones(2, dtype=t.float64, requires_grad=True),
    scalar_special=lambda t: t.tensor(float("inf")),
    scalar_large=lambda t: t.tensor(123456.789),
    long_ints=lambda t: t.tensor([1000000, -1]),
    formatted=lambda t: f"{t.tensor(1.23456):.2f}",
    bools=lambda t: t.tensor([[True, False], [False, False]]),
)
many(
    "arith",
    add=lambda t: a(t) + a(t),
    add_scalar=lambda t: a(t) + 1,
    int_add_float=lambda t: i(t) + 0.5,
    bool_add=lambda t: t.tensor([True, False]) + t.tensor([True, True]),
    bool_add_int=lambda t: t.tensor([True, False]) + 1,
    radd=lambda t: 1 - a(t),
    rdiv=lambda t: 1 / t.tensor([2.0, 4.0]),
    int_div=lambda t: i(t) / 2,
    floor_div=lambda t: i(t) // 2,
    floor_div_float=lambda t: a(t) // 0.4,
    mod=lambda t: i(t) % 3,
    mod_negative=lambda t: i(t) % -3,
    mod_float=lambda t: a(t) % 0.4,
    div_trunc=lambda t: t.div(i(t), 2, rounding_mode="trunc"),
    div_floor=lambda t: t.div(a(t), 0.4, rounding_mode="floor"),
    pow2=lambda t: a(t) ** 2,
    pow_half=lambda t: t.tensor([4.0, 9.0]) ** 0.5,
    pow_float=lambda t: t.tensor([4.0, 9.0]) ** 1.5,
    pow_neg=lambda t: t.tensor([4.0, 0.5]) ** -1,
    pow_int=lambda t: i(t) ** 3,
    pow_tensor=lambda t: t.tensor([2, 3, -2]) ** t.tensor([3, 2, 3]),
    rpow=lambda t: 2 ** t.tensor([1.0, 3.0]),
    neg=lambda t: -i(t),
    abs=lambda t: abs(i(t)),
    alpha=lambda t: t.add(a(t), a(t), alpha=2),
    sub_alpha=lambda t: a(t).sub(a(t), alpha=0.5),
    zero_d=lambda t: t.tensor([1, 2]) + t.tensor(0.5),
    zero_d_double=lambda t: t.ones(2) + t.tensor(0.5, dtype=t.float64),
    promote=lambda t: t.ones(2, dtype=t.int32) + t.ones(2, dtype=t.int64),
    promote_u8=lambda t: t.ones(2, dtype=t.uint8) + t.ones(2, dtype=t.int8),
    broadcast=lambda t: t.ones(3, 1) + t.arange(2.0),
    bitwise=lambda t: (i(t) & 3, i(t) | 1, i(t) ^ 2, ~i(t)),
    shift=lambda t: (i(t) << 1, i(t) >> 1),
    invert_bool=lambda t: ~t.tensor([True, False]),
    clamp=lambda t: (a(t).clamp(-1, 1), a(t).clamp(min=0), a(t).clamp(max=0.5)),
    clamp_int=lambda t: i(t).clamp(0, 2),
    maximum=lambda t: t.maximum(a(t), t.zeros(3)),
    where=lambda t: t.where(a(t) > 0, a(t), 0.0),
    where_scalar=lambda t: t.where(a(t) > 0, 1, 2),
    lerp=lambda t: t.lerp(t.zeros(2), t.ones(2), 0.25),
    addcmul=lambda t: t.addcmul(t.ones(2), t.ones(2), t.full((2,), 3.0), value=0.5),
    compare=lambda t: (a(t) > 0, a(t) == 3, i(t) != 2, i(t) <= 0),
    logical=lambda t: (t.logical_and(a(t), i(t)), t.logical_not(a(t)), t.logical_xor(a(t), i(t))),
    wrap=lambda t: t.tensor([127], dtype=t.int8) + 1,
    u8_wrap=lambda t: t.tensor([1], dtype=t.uint8) - 2,
)
for _name in [
    "exp",
    "log1p",
    "expm1",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tan",
    "tanh",
    "sigmoid",
    "erf",
    "floor",
    "ceil",
    "round",
    "trunc",
    "sign",
    "square",
    "reciprocal",
]:
    CASES[f"unary_{_name}"] = lambda t, n=_name: getattr(t, n)(t.tensor([0.5, 1.5, 2.5, 0.125]))
many(
    "unary",
    log=lambda t: t.log(t.tensor([1.0, 0.0, -1.0, 2.0])),
    int_exp=lambda t: t.exp(t.tensor([0, 1])),
    int_floor=lambda t: t.floor(i(t)),
    isnan=lambda t: (t.isnan(t.tensor([float("nan"), 1.0])), t.isinf(t.tensor([float("inf"), 1.0])), t.isfinite(a(t))),
    log2=lambda t: (t.log2(t.tensor([8.0])), t.log10(t.tensor([100.0])), t.exp2(t.tensor([3.0]))),
    round_decimals=lambda t: t.round(t.tensor([1.2345, -2.5]), decimals=2),
)
many(
    "reduce",
    sum=lambda t: a(t).sum(),
    sum_dim=lambda t: a(t).sum(0),
    sum_keep=lambda t: a(t).sum(1, keepdim=True),
    sum_dims=lambda t: a(t).sum((0, 1)),
    sum_axis=lambda t: a(t).sum(axis=-1),
    sum_bool=lambda t: (a(t) > 0).sum(),
    sum_int32=lambda t: i(t).to(t.int32).sum(),
    sum_dtype=lambda t: i(t).sum(dtype=t.float32),
    mean=lambda t: a(t).mean(),
    mean_dim=lambda t: a(t).mean(1),
    prod=lambda t: a(t).prod(1),
    max=lambda t: (a(t).max(), i(t).max()),
    max_dim=lambda t: tuple(a(t).max(1)),
    min_dim=lambda t: tuple(i(t).min(0)),
    amax=lambda t: a(t).amax(0),
    amin=lambda t: a(t).amin((0, 1)),
    argmax=lambda t: (a(t).argmax(), a(t).argmax(1), i(t).argmin(dim=0, keepdim=True)),
    var=lambda t: (a(t).var(), a(t).var(0), a(t).var(1, unbiased=False), a(t).std()),
    any_all=lambda t: ((a(t) > 2).any(), (a(t) > 2).all(), (a(t) > -1).all(1)),
    norm=lambda t: (a(t).norm(), a(t).norm(1), a(t).norm(dim=1)),
    logsumexp=lambda t: t.logsumexp(a(t), 1),
    cumsum=lambda t: (a(t).cumsum(0), i(t).cumsum(1)),
    empty=lambda t: (t.zeros(0).sum(), t.zeros(0).prod(), t.zeros(0, 3).sum(0)),
    nan_max=lambda t: t.tensor([1.0, float("nan"), 2.0]).max(),
)
many(
    "linalg",
    mm=lambda t: a(t) @ a(t).t(),
    mv=lambda t: a(t) @ t.tensor([1.0, 2.0, 3.0]),
    vm=lambda t: t.tensor([1.0, 2.0]) @ a(t),
    dot=lambda t: t.dot(t.tensor([1.0, 2.0]), t.tensor([3.0, 4.0])),
    bmm=lambda t: t.bmm(t.ones(2, 2, 3), t.ones(2, 3, 1)),
    batched=lambda t: (t.arange(12.0).view(2, 1, 2, 3) @ t.ones(3, 3, 2)).shape,
    batched_values=lambda t: t.arange(12.0).view(2, 2, 3) @ t.ones(3, 2),
    int_mm=lambda t: i(t) @ i(t).T,
    einsum=lambda t: t.einsum("ij,kj->ik", a(t), a(t)),
    einsum_one=lambda t: t.einsum("ij->ji", a(t)),
    addmm=lambda t: t.addmm(t.ones(2, 2), a(t), a(t).t()),
    outer=lambda t: t.outer(t.tensor([1.0, 2.0]), t.tensor([3.0, 4.0])),
)
many(
    "shape",
    view=lambda t: t.arange(6).view(2, 3),
    view_infer=lambda t: t.arange(6).view(-1, 2),
    reshape_t=lambda t: i(t).t().reshape(-1),
    permute=lambda t: t.arange(6).view(1, 2, 3).permute(2, 0, 1),
    transpose=lambda t: i(t).transpose(0, 1),
    flatten=lambda t: t.zeros(2, 3, 4).flatten(1).shape,
    squeeze=lambda t: (t.zeros(1, 2, 1).squeeze().shape, t.zeros(1, 2, 1).squeeze(0).shape),
    unsqueeze=lambda t: (t.zeros(2).unsqueeze(0).shape, t.zeros(2).unsqueeze(-1).shape),
    expand=lambda t: t.tensor([[1], [2]]).expand(2, 3),
    expand_keep=lambda t: t.tensor([1, 2]).expand(3, -1),
    cat=lambda t: t.cat([i(t), i(t)], 1),
    cat_promote=lambda t: t.cat([i(t), a(t)]),
    stack=lambda t: t.stack([t.arange(2), t.arange(2)], dim=1),
    split=lambda t: t.arange(5).split(2),
    split_sizes=lambda t: t.arange(5).split([1, 4]),
    chunk=lambda t: t.arange(5).chunk(2),
    unbind=lambda t: i(t).unbind(1),
    flip=lambda t: i(t).flip(1),
    roll=lambda t: (t.arange(5).roll(2), i(t).roll(1, 0)),
    repeat=lambda t: t.arange(2).repeat(2, 2),
    repeat_interleave=lambda t: t.arange(3).repeat_interleave(2),
    narrow=lambda t: i(t).narrow(1, 1, 2),
    movedim=lambda t: t.zeros(2, 3, 4).movedim(0, 2).shape,
    tril=lambda t: (t.ones(3, 3).tril(), t.ones(2, 3).triu(1)),
    strides=lambda t: (
        i(t).t().stride(),
        i(t)[:, ::2].stride(),
        i(t)[:, 1:].storage_offset(),
        t.ones(1).expand(3).stride(),
    ),
    contiguous=lambda t: (i(t).t().is_contiguous(), i(t).t().contiguous().is_contiguous()),
    diagonal=lambda t: t.arange(9).view(3, 3).diagonal(),
    meshgrid=lambda t: t.meshgrid(t.arange(2), t.arange(3), indexing="ij"),
    T=lambda t: i(t).T,
)
many(
    "index",
    int=lambda t: i(t)[1],
    negative=lambda t: i(t)[-1, -1],
    slice=lambda t: i(t)[:, 1:],
    step=lambda t: t.arange(10)[1:8:3],
    ellipsis=lambda t: t.arange(8).view(2, 2, 2)[..., 1],
    none=lambda t: i(t)[:, None].shape,
    tensor=lambda t: t.arange(10)[t.tensor([1, -1, 3])],
    rows=lambda t: i(t)[t.tensor([1, 0, 1])],
    pairs=lambda t: i(t)[t.tensor([0, 1]), t.tensor([2, 0])],
    columns=lambda t: i(t)[:, t.tensor([2, 0])],
    mixed=lambda t: t.arange(24).view(2, 3, 4)[t.tensor([0, 1]), :, t.tensor([1, 2])],
    broadcasted=lambda t: i(t)[t.tensor([[0], [1]]), t.tensor([0, 1])],
    list=lambda t: i(t)[[1, 0]],
    mask=lambda t: i(t)[i(t) > 0],
    mask_rows=lambda t: i(t)[t.tensor([False, True])],
    gather=lambda t: i(t).gather(1, t.tensor([[0, 2], [1, 1]])),
    index_select=lambda t: i(t).index_select(1, t.tensor([2, 0])),
    scatter_add=lambda t: t.zeros(2, 3).scatter_add(1, t.tensor([[0, 0], [2, 1]]), t.ones(2, 2)),
    masked_fill=lambda t: a(t).masked_fill(a(t) < 0, 9),
    masked_select=lambda t: a(t).masked_select(a(t) > 0),
    nonzero=lambda t: t.nonzero(i(t) > 0),
    one_hot=lambda t: t.nn.functional.one_hot(t.tensor([0, 2]), 3),
    scatter=lambda t: t.zeros(2, 3).scatter(1, t.tensor([[0, 2], [1, 0]]), t.tensor([[1.0, 2.0], [3.0, 4.0]])),
    scatter_value=lambda t: t.zeros(2, 3).scatter_(1, t.tensor([[1], [2]]), 1.0),
)


@case
def inplace_views(t: Any) -> Any:
    x = t.zeros(3, 4)
    x[1] = 5
    x[:, ::2] += 1
    x.view(-1)[3] = 9
    x.t()[2, 0] = -7
    y = x[1:, 1:]
    y.mul_(2)
    x[2, :2] = t.tensor([3.0, 4.0])
    return x, y


@case
def inplace_index(t: Any) -> Any:
    x = t.zeros(4, 3)
    x[t.tensor([0, 2])] = t.tensor([1.0, 2.0, 3.0])
    x[t.tensor([1, 3]), t.tensor([0, 2])] = 8
    x[x > 7] = -1
    x.masked_fill_(x == 2, 20)
    return x


@case
def inplace_ops(t: Any) -> Any:
    x = t.arange(4.0)
    y = x
    x += 1
    x *= t.tensor(2.0)
    x.clamp_(0, 6).sub_(1)
    x.copy_(x.flip(0))
    return x, y, x is y, x.zero_().fill_(3)


@case
def inplace_int_div_error(t: Any) -> Any:
    x = t.arange(3)
    x += 0.5
    return x


@case
def grad_basic(t: Any) -> Any:
    x = leaf(t)
    (x * x + 3 * x).sum().backward()
    return x.grad


@case
def grad_accumulates(t: Any) -> Any:
    x = leaf(t)
    x.sum().backward()
    (x * 2).sum().backward()
    return x.grad


@case
def grad_twice(t: Any) -> Any:
    x = leaf(t)
    y = (x * x).sum()
    y.backward()
    y.backward()


@case
def grad_retain(t: Any) -> Any:
    x = leaf(t)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    return x.grad


@case
def grad_vector(t: Any) -> Any:
    leaf(t).exp().backward()


@case
def grad_none(t: Any) -> Any:
    t.ones(2).sum().backward()


@case
def grad_leaf_inplace(t: Any) -> Any:
    x = leaf(t)
    x += 1


@case
def grad_leaf_view_inplace(t: Any) -> Any:
    x = leaf(t)
    x[0] = 1


@case
def grad_int(t: Any) -> Any:
    t.arange(3, requires_grad=True)


@case
def grad_numpy(t: Any) -> Any:
    leaf(t).numpy()


@case
def grad_no_grad(t: Any) -> Any:
    x = leaf(t)
    with t.no_grad():
        y = x * 2
    z = (y * x).sum()
    z.backward()
    return y.requires_grad, z.requires_grad, x.grad


@case
def grad_detach(t: Any) -> Any:
    x = leaf(t)
    (x.detach() * x).sum().backward()
    return x.grad


@case
def grad_views(t: Any) -> Any:
    x = leaf(t)
    y = x * 1
    y[0] = 7
    y[:, 1] *= 3
    (y.t()[1:] * y.t()[1:]).sum().backward()
    return x.grad, y


@case
def grad_shared(t: Any) -> Any:
    x = leaf(t)
    h = x * 2
    h.sum().backward()
    h.sum().backward()
    return x.grad


@case
def grad_second(t: Any) -> Any:
    x = leaf(t)
    (g,) = t.autograd.grad((x**3).sum(), x, create_graph=True)
    g.sum().backward()
    return g.detach(), x.grad


@case
def grad_unused(t: Any) -> Any:
    return t.autograd.grad(leaf(t).sum(), leaf(t))


@case
def grad_is_leaf(t: Any) -> Any:
    x = leaf(t)
    y = x * 2
    return x.is_leaf, y.is_leaf, y.detach().is_leaf, x.view(-1).is_leaf, x.requires_grad, x.detach().requires_grad


@case
def grad_max_ties(t: Any) -> Any:
    x = t.tensor([1.0, 3.0, 3.0], requires_grad=True)
    x.max().backward()
    y = t.tensor([[1.0, 3.0, 3.0]], requires_grad=True)
    y.max(1).values.sum().backward()
    return x.grad, y.grad


@case
def grad_clamp_relu(t: Any) -> Any:
    x = t.tensor([-1.0, 0.0, 0.5, 1.0, 2.0], requires_grad=True)
    (x.clamp(0, 1) + t.relu(x) * 10).sum().backward()
    return x.grad


@case
def grad_update_after_forward(t: Any) -> Any:
    w = leaf(t)
    y = (w * 2).exp().sum()
    with t.no_grad():
        w += 100
    y.backward()
    return w.grad


@case
def grad_observed_between(t: Any) -> Any:
    w = leaf(t)
    y = (w.tanh() * w).sum()
    seen = round(y.item(), 3)
    y.backward()
    return seen, w.grad


@case
def grad_retain_grad(t: Any) -> Any:
    x = leaf(t)
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward()
    return y.grad, x.grad


@case
def grad_hessian_like(t: Any) -> Any:
    x = t.tensor(2.0, requires_grad=True)
    y = x**4
    (g,) = t.autograd.grad(y, x, create_graph=True)
    (h,) = t.autograd.grad(g, x, create_graph=True)
    return g.detach(), h.detach()
