"""Public names: layers and losses under `torch` whose arguments differ from those of `nn.functional`."""

from graphc.native_layers import (
    affine_grid_generator,
    alpha_dropout,
    alpha_dropout_,
    batch_norm,
    conv_tbc,
    dropout,
    dropout_,
    embedding,
    embedding_bag,
    feature_alpha_dropout,
    feature_alpha_dropout_,
    feature_dropout,
    feature_dropout_,
    grid_sampler,
    grid_sampler_2d,
    grid_sampler_3d,
    group_norm,
    instance_norm,
    layer_norm,
    native_batch_norm,
    native_dropout,
    native_group_norm,
    native_layer_norm,
    norm_except_dim,
)
from graphc.native_losses import (
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    ctc_loss,
    hinge_embedding_loss,
    kl_div,
    margin_ranking_loss,
    poisson_nll_loss,
    triplet_margin_loss,
)
from graphc.normalisation import rms_norm
