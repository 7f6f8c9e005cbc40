"""Optimizers and learning rate schedules, under PyTorch's names."""

from graphc.optim import lr_scheduler, swa_utils
from graphc.optim.adam import Adam, AdamW
from graphc.optim.adam_variants import Adamax, NAdam, RAdam
from graphc.optim.averaging import Adadelta, Adagrad, RMSprop
from graphc.optim.factored import Adafactor, Muon, SparseAdam
from graphc.optim.lbfgs import LBFGS
from graphc.optim.optimizer import Optimizer
from graphc.optim.sgd import SGD
from graphc.optim.signs import ASGD, Rprop

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "lr_scheduler",
    "swa_utils",
]
