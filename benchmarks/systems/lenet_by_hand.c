// One training step of LeNet (3x3 windows, 1x32x32 images), mean cross-entropy, plain SGD, one thread: vectors of 16
// samples in every lane, register tiles by hand. Arrays are PyTorch's, parameters in the order of the network's.
#include <stdint.h>
#include <string.h>

typedef float vec __attribute__((vector_size(64)));
typedef float row __attribute__((vector_size(64), aligned(4)));
typedef int32_t mask __attribute__((vector_size(64)));

enum { LANES = 16, CLASSES = 10, TILE = 6, TALL = 12, PAD = 2, SIDE2 = 13, WIDE2 = SIDE2 + 2 * PAD };

// The 10 parameters in one array, and their gradients in another.
typedef struct {
  float conv1[6][9], bias1[6], conv2[16][6][9], bias2[16];
  float fc1[120][576], bias3[120], fc2[84][120], bias4[84], fc3[CLASSES][84], bias5[CLASSES];
} Net;

static Net gradient;
static vec image[32 * 32], conv1[6 * 30 * 30], pool1[6 * 15 * 15], conv2[16 * SIDE2 * SIDE2], pool2[576];
static vec hidden1[120], hidden2[84], logits[CLASSES];
static vec d_logits[CLASSES], d_hidden2[84], d_hidden1[120], d_pool2[576], d_pool1[6 * 15 * 15], d_conv1[6 * 30 * 30];
// With a frame of zeros, so that the convolution's gradient needs no conditions.
static vec d_conv2[16 * WIDE2 * WIDE2];
static float turned[6][16][9], by_sample[LANES][576];
static const float no_bias[16];

static inline vec all(float x) { return (vec){} + x; }
static inline vec larger(vec a, vec b) { return __builtin_elementwise_max(a, b); }
static inline vec where(mask m, vec a) { return (vec)(m & (mask)a); }
static inline float sum(vec a) {
  float s = 0;
  for (int i = 0; i < LANES; i++) s += a[i];
  return s;
}

// A 3x3 convolution: two channels times six places are held in registers.
static void conv(const vec *x, int inputs, int side, const float *w, const float *bias, int outputs, vec *y) {
  const int out = side - 2;
  for (int o = 0; o < outputs; o += 2)
    for (int h = 0; h < out; h++)
      for (int start = 0; start < out; start += TILE) {
        const int at = start + TILE > out ? out - TILE : start;
        vec a[2][TILE];
        for (int i = 0; i < 2; i++)
          for (int j = 0; j < TILE; j++) a[i][j] = all(bias[o + i]);
        for (int c = 0; c < inputs; c++)
#pragma unroll
          for (int kh = 0; kh < 3; kh++) {
            const vec *r = x + (c * side + h + kh) * side + at;
#pragma unroll
            for (int kw = 0; kw < 3; kw++)
#pragma unroll
              for (int i = 0; i < 2; i++) {
                const vec weight = all(w[((o + i) * inputs + c) * 9 + kh * 3 + kw]);
#pragma unroll
                for (int j = 0; j < TILE; j++) a[i][j] += weight * r[kw + j];
              }
          }
        for (int i = 0; i < 2; i++)
          for (int j = 0; j < TILE; j++) y[((o + i) * out + h) * out + at + j] = a[i][j];
      }
}

// Its weights' and bias's gradient; `d` has rows of `wide` vectors and starts `pad` rows and places in.
static void conv_weights(const vec *x, int inputs, int side, const vec *d, int wide, int pad, int outputs, float *dw,
                         float *db) {
  const int out = side - 2;
  d += pad * wide + pad;
  for (int o = 0; o < outputs; o += 2)
    for (int c = 0; c < inputs; c++) {
      vec a[2][9] = {};
      for (int h = 0; h < out; h++)
        for (int w = 0; w < out; w++) {
          const vec d0 = d[(o * wide + h) * wide + w], d1 = d[((o + 1) * wide + h) * wide + w];
#pragma unroll
          for (int k = 0; k < 9; k++) {
            const vec value = x[(c * side + h + k / 3) * side + w + k % 3];
            a[0][k] += d0 * value;
            a[1][k] += d1 * value;
          }
        }
      for (int i = 0; i < 2; i++)
        for (int k = 0; k < 9; k++) dw[((o + i) * inputs + c) * 9 + k] += sum(a[i][k]);
    }
  for (int o = 0; o < outputs; o++) {
    vec s = {};
    for (int h = 0; h < out; h++)
      for (int w = 0; w < out; w++) s += d[(o * wide + h) * wide + w];
    db[o] += sum(s);
  }
}

// relu, then the greatest of 2x2.
static void relu_pool(const vec *x, int channels, int side, vec *y) {
  const int half = side / 2;
  for (int c = 0; c < channels; c++)
    for (int h = 0; h < half; h++)
      for (int w = 0; w < half; w++) {
        const vec *q = x + (c * side + 2 * h) * side + 2 * w;
        y[(c * half + h) * half + w] = larger(larger(larger(q[0], q[1]), larger(q[side], q[side + 1])), (vec){});
      }
}

// The gradient goes to the first of the greatest, where that is positive.
static void relu_pool_back(const vec *x, const vec *y, const vec *dy, int channels, int side, vec *dx, int wide,
                           int pad) {
  const int half = side / 2;
  for (int c = 0; c < channels; c++)
    for (int h = 0; h < half; h++)
      for (int w = 0; w < half; w++) {
        const vec *q = x + (c * side + 2 * h) * side + 2 * w;
        const vec top = y[(c * half + h) * half + w], g = where(top > all(0), dy[(c * half + h) * half + w]);
        const mask m0 = q[0] == top, m1 = (q[1] == top) & ~m0, m2 = (q[side] == top) & ~m0 & ~m1;
        vec *d = dx + (c * wide + 2 * h + pad) * wide + 2 * w + pad;
        d[0] = where(m0, g), d[1] = where(m1, g), d[wide] = where(m2, g), d[wide + 1] = where(~(m0 | m1 | m2), g);
      }
}

static inline void outputs_of(const vec *x, int inputs, const float *w, const float *bias, int count, vec *y,
                              int relu) {
  vec a[TALL];
  for (int k = 0; k < count; k++) a[k] = all(bias[k]);
  for (int i = 0; i < inputs; i++)
#pragma unroll
    for (int k = 0; k < count; k++) a[k] += all(w[k * inputs + i]) * x[i];
  for (int k = 0; k < count; k++) y[k] = relu ? larger(a[k], (vec){}) : a[k];
}

// A linear layer whose outputs are a multiple of 12, or the 10 classes.
static void linear(const vec *x, int inputs, const float *w, const float *bias, int outputs, vec *y) {
  if (outputs == CLASSES) {
    outputs_of(x, inputs, w, bias, CLASSES, y, 0);
    return;
  }
  for (int o = 0; o < outputs; o += TALL) outputs_of(x, inputs, w + o * inputs, bias + o, TALL, y + o, 1);
}

// The gradient of its inputs, which a relu made.
static void linear_inputs(const vec *dy, int outputs, const float *w, int inputs, const vec *x, vec *dx) {
  for (int i = 0; i < inputs; i += TALL) {
    vec a[TALL] = {};
    for (int o = 0; o < outputs; o++)
#pragma unroll
      for (int k = 0; k < TALL; k++) a[k] += all(w[o * inputs + i + k]) * dy[o];
    for (int k = 0; k < TALL; k++) dx[i + k] = where(x[i + k] > all(0), a[k]);
  }
}

// The gradient of its weights, along the inputs.
static void linear_weights(const vec *dy, int outputs, const vec *x, int inputs, float *dw, float *db) {
  for (int i = 0; i < inputs; i++)
    for (int s = 0; s < LANES; s++) by_sample[s][i] = x[i][s];
  for (int o = 0; o < outputs; o++) {
    float *g = dw + o * inputs;
    db[o] += sum(dy[o]);
    int i = 0;
    for (; i + 4 * LANES <= inputs; i += 4 * LANES) {
      row a[4];
      for (int k = 0; k < 4; k++) a[k] = *(row *)(g + i + k * LANES);
#pragma unroll
      for (int s = 0; s < LANES; s++)
#pragma unroll
        for (int k = 0; k < 4; k++) a[k] += all(dy[o][s]) * *(row *)(by_sample[s] + i + k * LANES);
      for (int k = 0; k < 4; k++) *(row *)(g + i + k * LANES) = a[k];
    }
    for (; i < inputs; i++)
      for (int s = 0; s < LANES; s++) g[i] += dy[o][s] * by_sample[s][i];
  }
}

// Logits to their gradient; the loss of the 16 samples.
static float cross_entropy(const int64_t *labels, float scale) {
  float loss = 0;
  for (int s = 0; s < LANES; s++) {
    float top = logits[0][s], total = 0;
    for (int c = 1; c < CLASSES; c++) top = logits[c][s] > top ? logits[c][s] : top;
    for (int c = 0; c < CLASSES; c++) total += d_logits[c][s] = __builtin_expf(logits[c][s] - top);
    for (int c = 0; c < CLASSES; c++) d_logits[c][s] *= scale / total;
    d_logits[labels[s]][s] -= scale;
    loss += (top + __builtin_logf(total) - logits[labels[s]][s]) * scale;
  }
  return loss;
}

static float block(const Net *net, const float *samples, const int64_t *labels, float scale) {
  Net *g = &gradient;
  for (int i = 0; i < 32 * 32; i++)
    for (int s = 0; s < LANES; s++) image[i][s] = samples[s * 32 * 32 + i];
  conv(image, 1, 32, net->conv1[0], net->bias1, 6, conv1);
  relu_pool(conv1, 6, 30, pool1);
  conv(pool1, 6, 15, net->conv2[0][0], net->bias2, 16, conv2);
  relu_pool(conv2, 16, SIDE2, pool2);
  linear(pool2, 576, net->fc1[0], net->bias3, 120, hidden1);
  linear(hidden1, 120, net->fc2[0], net->bias4, 84, hidden2);
  linear(hidden2, 84, net->fc3[0], net->bias5, CLASSES, logits);
  const float loss = cross_entropy(labels, scale);
  linear_inputs(d_logits, CLASSES, net->fc3[0], 84, hidden2, d_hidden2);
  linear_inputs(d_hidden2, 84, net->fc2[0], 120, hidden1, d_hidden1);
  linear_inputs(d_hidden1, 120, net->fc1[0], 576, pool2, d_pool2);
  linear_weights(d_logits, CLASSES, hidden2, 84, g->fc3[0], g->bias5);
  linear_weights(d_hidden2, 84, hidden1, 120, g->fc2[0], g->bias4);
  linear_weights(d_hidden1, 120, pool2, 576, g->fc1[0], g->bias3);
  relu_pool_back(conv2, pool2, d_pool2, 16, SIDE2, d_conv2, WIDE2, PAD);
  conv_weights(pool1, 6, 15, d_conv2, WIDE2, PAD, 16, g->conv2[0][0], g->bias2);
  conv(d_conv2, 16, WIDE2, turned[0][0], no_bias, 6, d_pool1);
  relu_pool_back(conv1, pool1, d_pool1, 6, 30, d_conv1, 30, 0);
  conv_weights(image, 1, 32, d_conv1, 30, 0, 6, g->conv1[0], g->bias1);
  return loss;
}

// A step on `batch` samples, a multiple of 16; the loss before it.
float lenet_step(Net *net, const float *samples, const int64_t *labels, int batch, float rate) {
  memset(&gradient, 0, sizeof gradient);
  for (int i = 0; i < 6; i++)
    for (int o = 0; o < 16; o++)
      for (int k = 0; k < 9; k++) turned[i][o][k] = net->conv2[o][i][8 - k];
  float loss = 0;
  for (int s = 0; s < batch; s += LANES) loss += block(net, samples + s * 32 * 32, labels + s, 1.0f / batch);
  float *w = (float *)net;
  const float *g = (const float *)&gradient;
  for (int i = 0; i < (int)(sizeof gradient / sizeof *w); i++) w[i] -= rate * g[i];
  return loss;
}
