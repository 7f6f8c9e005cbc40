"""The layers in the modules in which PyTorch has them, for programs that import them from there."""

from graphc.nn.modules import (
    activation,
    adaptive,
    batchnorm,
    channelshuffle,
    container,
    conv,
    distance,
    dropout,
    flatten,
    fold,
    instancenorm,
    lazy,
    linear,
    loss,
    module,
    normalization,
    padding,
    pixelshuffle,
    pooling,
    rnn,
    sparse,
    transformer,
    upsampling,
    utils,
)
from graphc.nn.modules.activation import *  # noqa: F403
from graphc.nn.modules.adaptive import *  # noqa: F403
from graphc.nn.modules.batchnorm import *  # noqa: F403
from graphc.nn.modules.channelshuffle import *  # noqa: F403
from graphc.nn.modules.container import *  # noqa: F403
from graphc.nn.modules.conv import *  # noqa: F403
from graphc.nn.modules.distance import *  # noqa: F403
from graphc.nn.modules.dropout import *  # noqa: F403
from graphc.nn.modules.flatten import *  # noqa: F403
from graphc.nn.modules.fold import *  # noqa: F403
from graphc.nn.modules.instancenorm import *  # noqa: F403
from graphc.nn.modules.lazy import *  # noqa: F403
from graphc.nn.modules.linear import *  # noqa: F403
from graphc.nn.modules.loss import *  # noqa: F403
from graphc.nn.modules.module import *  # noqa: F403
from graphc.nn.modules.normalization import *  # noqa: F403
from graphc.nn.modules.padding import *  # noqa: F403
from graphc.nn.modules.pixelshuffle import *  # noqa: F403
from graphc.nn.modules.pooling import *  # noqa: F403
from graphc.nn.modules.rnn import *  # noqa: F403
from graphc.nn.modules.sparse import *  # noqa: F403
from graphc.nn.modules.transformer import *  # noqa: F403
from graphc.nn.modules.upsampling import *  # noqa: F403

__all__ = [
    "activation",
    "adaptive",
    "batchnorm",
    "channelshuffle",
    "container",
    "conv",
    "distance",
    "dropout",
    "flatten",
    "fold",
    "instancenorm",
    "lazy",
    "linear",
    "loss",
    "module",
    "normalization",
    "padding",
    "pixelshuffle",
    "pooling",
    "rnn",
    "sparse",
    "transformer",
    "upsampling",
    "utils",
]
