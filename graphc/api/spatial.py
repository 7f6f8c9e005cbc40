"""Public names: convolution, pooling and resampling functions that stand under `torch` too."""

from graphc.adaptive_pooling import adaptive_avg_pool1d as adaptive_avg_pool1d
from graphc.adaptive_pooling import adaptive_max_pool1d_with_indices as adaptive_max_pool1d
from graphc.convolution import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from graphc.pooling import avg_pool1d, max_pool1d, max_pool1d_with_indices, max_pool2d, max_pool3d
from graphc.shuffling import channel_shuffle, native_channel_shuffle, pixel_shuffle, pixel_unshuffle
