"""More of `cases.py`: the functions behind layers, and errors."""

from __future__ import annotations

from typing import Any

from tests.frontend.cases import CASES, a, case, leaf, many

__all__ = ["CASES"]


def image(t: Any) -> Any:
    return ((t.arange(2 * 3 * 6 * 5) * 7) % 11 - 5).float().view(2, 3, 6, 5)


def kernel(t: Any, o: int = 4, c: int = 3) -> Any:
    return ((t.arange(o * c * 3 * 2) * 5) % 7 - 3).float().view(o, c, 3, 2)


def targets(t: Any) -> Any:
    return t.tensor([2, 0])


many(
    "nn",
    relu=lambda t: t.nn.functional.relu(a(t)),
    leaky=lambda t: t.nn.functional.leaky_relu(a(t), 0.1),
    elu=lambda t: t.nn.functional.elu(a(t)),
    selu=lambda t: t.nn.functional.selu(a(t)),
    gelu=lambda t: t.nn.functional.gelu(a(t) * 0.9),
    gelu_tanh=lambda t: t.nn.functional.gelu(a(t), approximate="tanh"),
    silu=lambda t: t.nn.functional.silu(a(t)),
    softplus=lambda t: t.nn.functional.softplus(a(t), beta=2),
    hardtanh=lambda t: t.nn.functional.hardtanh(a(t)),
    mish=lambda t: t.nn.functional.mish(a(t)),
    logsigmoid=lambda t: t.nn.functional.logsigmoid(a(t)),
    hardswish=lambda t: t.nn.functional.hardswish(a(t)),
    softmax=lambda t: t.softmax(a(t), 1),
    log_softmax=lambda t: t.nn.functional.log_softmax(a(t), dim=0),
    linear=lambda t: t.nn.functional.linear(a(t), a(t), t.tensor([1.0, 2.0])),
    conv=lambda t: t.nn.functional.conv2d(image(t), kernel(t)),
    conv_stride=lambda t: t.nn.functional.conv2d(image(t), kernel(t), t.ones(4), stride=2, padding=1),
    conv_dilation=lambda t: t.nn.functional.conv2d(image(t), kernel(t), dilation=(1, 2), padding=(2, 0)),
    conv_same=lambda t: t.nn.functional.conv2d(image(t), kernel(t), padding="same"),
    conv_groups=lambda t: t.nn.functional.conv2d(image(t), kernel(t, 6, 1), groups=3),
    conv1d=lambda t: t.nn.functional.conv1d(image(t)[:, :, 0], kernel(t)[:, :, 0], padding=1, stride=2),
    max_pool=lambda t: t.nn.functional.max_pool2d(image(t), 2),
    max_pool_pad=lambda t: t.nn.functional.max_pool2d(image(t), 3, stride=2, padding=1),
    max_pool_ceil=lambda t: t.nn.functional.max_pool2d(image(t), 2, ceil_mode=True),
    avg_pool=lambda t: t.nn.functional.avg_pool2d(image(t), 2),
    avg_pool_pad=lambda t: t.nn.functional.avg_pool2d(image(t), 3, stride=2, padding=1),
    avg_pool_no_pad=lambda t: t.nn.functional.avg_pool2d(image(t), 3, stride=2, padding=1, count_include_pad=False),
    adaptive=lambda t: t.nn.functional.adaptive_avg_pool2d(image(t), (3, 1)),
    cross_entropy=lambda t: t.nn.functional.cross_entropy(a(t), targets(t)),
    cross_entropy_none=lambda t: t.nn.functional.cross_entropy(a(t), targets(t), reduction="none"),
    cross_entropy_weight=lambda t: t.nn.functional.cross_entropy(a(t), targets(t), weight=t.tensor([1.0, 2.0, 3.0])),
    cross_entropy_ignore=lambda t: t.nn.functional.cross_entropy(a(t), t.tensor([2, -100])),
    cross_entropy_smooth=lambda t: t.nn.functional.cross_entropy(a(t), targets(t), label_smoothing=0.1),
    cross_entropy_probs=lambda t: t.nn.functional.cross_entropy(a(t), t.softmax(a(t), 1)),
    cross_entropy_image=lambda t: t.nn.functional.cross_entropy(image(t), t.ones(2, 6, 5, dtype=t.int64)),
    nll=lambda t: t.nn.functional.nll_loss(t.log_softmax(a(t), 1), targets(t), reduction="sum"),
    mse=lambda t: t.nn.functional.mse_loss(a(t), t.zeros(2, 3)),
    l1=lambda t: t.nn.functional.l1_loss(a(t), t.zeros(2, 3), reduction="sum"),
    smooth_l1=lambda t: t.nn.functional.smooth_l1_loss(a(t), t.zeros(2, 3)),
    huber=lambda t: t.nn.functional.huber_loss(a(t), t.zeros(2, 3), delta=0.5),
    bce=lambda t: t.nn.functional.binary_cross_entropy(t.sigmoid(a(t)), t.ones(2, 3)),
    bce_logits=lambda t: t.nn.functional.binary_cross_entropy_with_logits(a(t), t.ones(2, 3) * 0.3),
    bce_pos=lambda t: t.nn.functional.binary_cross_entropy_with_logits(
        a(t), t.ones(2, 3) * 0.3, pos_weight=t.tensor([1.0, 2.0, 3.0])
    ),
    kl=lambda t: t.nn.functional.kl_div(t.log_softmax(a(t), 1), t.softmax(a(t) * 2, 1), reduction="batchmean"),
    layer_norm=lambda t: t.nn.functional.layer_norm(a(t), (3,), t.ones(3) * 2, t.ones(3)),
    batch_norm=lambda t: t.nn.functional.batch_norm(image(t), t.zeros(3), t.ones(3), training=True)[0, 0],
    batch_norm_eval=lambda t: t.nn.functional.batch_norm(image(t), t.ones(3), t.ones(3) * 2)[0, 0],
    embedding=lambda t: t.nn.functional.embedding(t.tensor([[1, 0]]), a(t)),
    pad=lambda t: t.nn.functional.pad(a(t), (1, 0, 0, 1), value=5),
    pad_negative=lambda t: t.nn.functional.pad(a(t), (-1, 1)),
    normalize=lambda t: t.nn.functional.normalize(a(t), dim=1),
    unfold=lambda t: t.nn.functional.unfold(image(t), 3).shape,
)


@case
def nn_gradients(t: Any) -> Any:
    x = image(t).requires_grad_()
    w = kernel(t).requires_grad_()
    f = t.nn.functional
    y = f.max_pool2d(f.relu(f.conv2d(x, w, padding=1)), 2, stride=2)
    f.cross_entropy(y.flatten(1), t.tensor([3, 1])).backward()
    return w.grad[:2, 0], (x.grad[0, 0, :3] * 1000).round()


@case
def nn_softplus_gradient(t: Any) -> Any:
    x = t.tensor([-30.0, -1.0, 0.0, 1.0, 30.0], requires_grad=True)
    t.nn.functional.softplus(x).sum().backward()
    return x.grad


@case
def nn_running_statistics(t: Any) -> Any:
    mean, var = t.zeros(3), t.ones(3)
    t.nn.functional.batch_norm(image(t), mean, var, training=True, momentum=0.5)
    return mean, var


many(
    "error",
    broadcast=lambda t: t.ones(2, 3) + t.ones(4),
    matmul=lambda t: t.ones(2, 3) @ t.ones(2, 3),
    view=lambda t: t.ones(6).view(4),
    view_strides=lambda t: t.ones(2, 3).t().view(6),
    reshape=lambda t: t.ones(6).reshape(-1, 4),
    two_unknown=lambda t: t.ones(6).reshape(-1, -1),
    dim=lambda t: t.ones(2).sum(2),
    index=lambda t: t.ones(2)[5],
    index_dims=lambda t: t.ones(2)[0, 0],
    item=lambda t: t.ones(2).item(),
    truth=lambda t: bool(t.ones(2)),
    cat=lambda t: t.cat([t.ones(2, 3), t.ones(2, 4)]),
    stack=lambda t: t.stack([t.ones(2), t.ones(3)]),
    expand=lambda t: t.ones(2, 3).expand(2, 4),
    expanded_write=lambda t: t.ones(1).expand(3).add_(1),
    bool_sub=lambda t: t.tensor([True]) - t.tensor([True]),
    int_mean=lambda t: t.arange(3).mean(),
    neg_bool=lambda t: -t.tensor([True]),
    int_pow=lambda t: t.tensor([2]) ** -1,
    shape_inplace=lambda t: t.ones(2).add_(t.ones(3, 2)),
    step=lambda t: t.ones(4)[::-1],
    numpy_grad=lambda t: t.ones(1, requires_grad=True).numpy(),
    len=lambda t: len(t.tensor(1.0)),
    iterate=lambda t: list(t.tensor(1.0)),
    int_index=lambda t: t.ones(2)[1.5],
    permute=lambda t: t.ones(2, 3).permute(0, 0),
    squeeze_dim=lambda t: t.ones(2).squeeze(3),
    cross_entropy_batch=lambda t: t.nn.functional.cross_entropy(a(t), t.tensor([1])),
    dropout=lambda t: t.nn.functional.dropout(a(t), 1.5),
    conv_channels=lambda t: t.nn.functional.conv2d(image(t), t.ones(4, 2, 3, 3)),
    conv_small=lambda t: t.nn.functional.conv2d(t.ones(1, 1, 2, 2), t.ones(1, 1, 3, 3)),
    set_shape=lambda t: t.ones(2, 3).__setitem__(0, t.ones(2)),
    arange=lambda t: t.arange(3, 0),
    negative_size=lambda t: t.zeros(-1),
    narrow=lambda t: t.ones(3).narrow(0, 2, 2),
    grad_shape=lambda t: leaf(t).exp().backward(t.ones(2)),
    empty_max=lambda t: t.zeros(0).max(),
    float_and=lambda t: t.ones(2) & t.ones(2),
    non_leaf_flag=lambda t: (leaf(t) * 2).requires_grad_(False),
    int_requires=lambda t: t.arange(2).requires_grad_(),
)
