// Custom calls of XLA for a CPU (layers/native.py): convolutions by oneDNN, sums over all but the channels. float32.
//
// Images are NHWC and kernels HWIO, as everywhere in cnn_jax; oneDNN may take kernels in an order of its own, into which
// they are brought at each call: they are small beside the images.

#include <algorithm>
#include <cstdint>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <omp.h>

#include "dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Numbers = std::vector<int64_t>;
using Tag = dnnl::memory::format_tag;

// One thread that computes everything, one thing after the other, each on all cores. XLA calls from several threads, and
// OpenMP would keep a team of its own for each of them, whose members spin on the cores that another team needs.
class Worker {
 public:
  static Worker& Get() {
    static Worker* worker = new Worker;  // lives as long as the process
    return *worker;
  }

  // Runs `work` there and waits for it.
  void Run(const std::function<void()>& work) {
    std::lock_guard<std::mutex> turn(turn_);
    std::unique_lock<std::mutex> lock(lock_);
    work_ = &work;
    changed_.notify_all();
    changed_.wait(lock, [&] { return work_ == nullptr; });
  }

 private:
  Worker() {
    std::thread([this] {
      std::unique_lock<std::mutex> lock(lock_);
      while (true) {
        changed_.wait(lock, [&] { return work_ != nullptr; });
        (*work_)();
        work_ = nullptr;
        changed_.notify_all();
      }
    }).detach();
  }

  std::mutex turn_, lock_;
  std::condition_variable changed_;
  const std::function<void()>* work_ = nullptr;
};

enum Kind : int64_t { kConv = 0, kInputGrad = 1, kKernelGrad = 2 };  // as in native.py

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// An argument or the result: XLA's array, and the same in the order that oneDNN computes with, if it is another.
struct Operand {
  dnnl::memory given, used;
  dnnl::primitive reorder;  // empty where both are one

  Operand(const dnnl::memory::desc& layout, const dnnl::memory::desc& wanted, bool result)
      : given(layout, Engine(), nullptr), used(given) {
    if (layout == wanted) return;
    used = dnnl::memory(wanted, Engine());
    reorder = result ? dnnl::reorder(used, given) : dnnl::reorder(given, used);
  }
};

struct Plan {
  dnnl::primitive primitive;
  Operand first, second, result;
  int roles[3];
  dnnl::memory::desc scratch;
};

struct Shapes {
  Numbers images, kernel, maps;  // (B, H, W, C), (kh, kw, C / groups, O), (B, H', W', O)
};

Plan MakePlan(int64_t kind, const Shapes& of, const Numbers& stride, const Numbers& padding, int64_t groups,
              const Numbers& dilation) {
  using dnnl::memory;
  const auto f32 = memory::data_type::f32;
  auto nhwc = [&](const Numbers& n) { return memory::desc({n[0], n[3], n[1], n[2]}, f32, Tag::nhwc); };
  const Numbers& k = of.kernel;
  const memory::dims dims = groups == 1 ? memory::dims{k[3], k[2], k[0], k[1]}
                                        : memory::dims{groups, k[3] / groups, k[2], k[0], k[1]};
  const memory::desc images = nhwc(of.images), maps = nhwc(of.maps), any(dims, f32, Tag::any),
                     kernel(dims, f32, groups == 1 ? Tag::hwio : Tag::hwigo);
  const memory::dims low{padding[0], padding[2]}, high{padding[1], padding[3]};
  const memory::dims gaps{dilation[0] - 1, dilation[1] - 1};  // pixels from tap to tap that are left out
  const auto direct = dnnl::algorithm::convolution_direct;
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);

  const auto forward = kind == kConv ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training;
  dnnl::convolution_forward::primitive_desc conv(Engine(), forward, direct, images, any, maps, stride, gaps, low,
                                                 high, attributes);
  if (kind == kConv) {
    return {dnnl::convolution_forward(conv),
            Operand(images, conv.src_desc(), false),
            Operand(kernel, conv.weights_desc(), false),
            Operand(maps, conv.dst_desc(), true),
            {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
            conv.scratchpad_desc()};
  }
  if (kind == kInputGrad) {
    dnnl::convolution_backward_data::primitive_desc grad(Engine(), direct, images, any, maps, stride, gaps, low, high,
                                                         conv, attributes);
    return {dnnl::convolution_backward_data(grad),
            Operand(maps, grad.diff_dst_desc(), false),
            Operand(kernel, grad.weights_desc(), false),
            Operand(images, grad.diff_src_desc(), true),
            {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
            grad.scratchpad_desc()};
  }
  dnnl::convolution_backward_weights::primitive_desc grad(Engine(), direct, images, any, maps, stride, gaps, low, high,
                                                          conv, attributes);
  return {dnnl::convolution_backward_weights(grad),
          Operand(images, grad.src_desc(), false),
          Operand(maps, grad.diff_dst_desc(), false),
          Operand(kernel, grad.diff_weights_desc(), true),
          {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS},
          grad.scratchpad_desc()};
}

// Memory that a convolution computes in: one piece for all of them, which never run side by side.
void* Scratch(size_t bytes) {
  static void* piece = nullptr;
  static size_t size = 0;
  if (bytes > size) {
    std::free(piece);
    size = (bytes + 4095) / 4096 * 4096;
    piece = std::aligned_alloc(4096, size);
  }
  return piece;
}

Numbers Copy(ffi::Span<const int64_t> values) { return Numbers(values.begin(), values.end()); }

// So many floats side by side in a register, by the vectors of GCC and Clang, which know what a comparison chooses.
template <int count>
struct Lanes {
  typedef float Floats __attribute__((vector_size(4 * count)));
  typedef int32_t Numbers __attribute__((vector_size(4 * count)));

  static Floats Load(const float* from) {
    Floats values;
    std::memcpy(&values, from, sizeof values);
    return values;
  }
  static void Store(const Floats& values, float* to) { std::memcpy(to, &values, sizeof values); }
  static Floats All(float value) { return Floats{} + value; }
};

// Convolutions of stride 1 over few channels, as LeNet has them. oneDNN computes blocks of 8 or 16 channels, and most of
// those are empty there. All outputs of a pixel lie side by side in one register, `lanes` wide.
class Few {
 public:
  static bool Fits(const Shapes& of, const Numbers& stride, const Numbers& dilation, int64_t groups) {
    const int64_t channels = of.kernel[2], features = of.kernel[3];
    const bool few = channels <= kMost && features <= kMost && (channels % kMost || features % kMost);
    return few && groups == 1 && stride == Numbers{1, 1} && dilation == Numbers{1, 1} && of.maps[2] >= kPixels;
  }

  static void Run(int64_t kind, const Shapes& of, const Numbers& padding, const float* first, const float* second,
                  float* result) {
    const Few few(of, padding[0], padding[2]);
    if (kind == kInputGrad) return few.InputGrad(first, second, result);
    auto work = [&](auto lanes) {
      kind == kConv ? few.Forward(lanes, first, second, result) : few.KernelGrad(lanes, first, second, result);
    };
    few.features_ <= 8 ? work(Lanes<8>()) : work(Lanes<16>());
  }

 private:
  static constexpr int kMost = 16;
#ifdef __AVX512F__
  static constexpr int kPixels = 10;  // sums at once, each a register or two
#else
  static constexpr int kPixels = 5;
#endif

  const int64_t batch_, height_, width_, channels_, out_height_, out_width_, features_, kh_, kw_, top_, left_;
  const int64_t line_, row_;  // floats of a kernel's row for one output, of a padded image's row

  Few(const Shapes& of, int64_t top, int64_t left)
      : batch_(of.images[0]), height_(of.images[1]), width_(of.images[2]), channels_(of.images[3]),
        out_height_(of.maps[1]), out_width_(of.maps[2]), features_(of.maps[3]), kh_(of.kernel[0]), kw_(of.kernel[1]),
        top_(top), left_(left), line_(kw_ * channels_), row_((out_width_ + kw_ - 1) * channels_) {}

  std::vector<float> Zeros() const { return std::vector<float>((out_height_ + kh_ - 1) * row_ + kMost); }

  // Calls copy(floats of an image, the same in the padded one, how many) for its rows that any window sees.
  template <typename Copy>
  void Rows(Copy copy) const {
    const int64_t some = std::min(width_ * channels_, row_ - left_ * channels_);
    for (int64_t y = 0; y < std::min(height_, out_height_ + kh_ - 1 - top_); ++y)
      copy(y * width_ * channels_, (y + top_) * row_ + left_ * channels_, some);
  }

  void Pad(const float* image, std::vector<float>& padded) const {
    Rows([&](int64_t here, int64_t there, int64_t some) { std::copy_n(image + here, some, &padded[there]); });
  }

  // Rows of `features_` floats, each `wide` apart.
  std::vector<float> Apart(const float* from, int64_t rows, int64_t wide) const {
    std::vector<float> made(rows * wide);
    for (int64_t r = 0; r < rows; ++r) std::copy(from + r * features_, from + (r + 1) * features_, &made[r * wide]);
    return made;
  }

  template <int wide>
  void Forward(Lanes<wide> lanes, const float* images, const float* kernel, float* maps) const {
    const std::vector<float> weights = Apart(kernel, kh_ * line_, wide);
#pragma omp parallel
    {
      std::vector<float> padded = Zeros(), sums(out_width_ * features_ + wide);
#pragma omp for schedule(static)
      for (int64_t image = 0; image < batch_; ++image) {
        Pad(images + image * height_ * width_ * channels_, padded);
        for (int64_t y = 0; y < out_height_; ++y) {
          for (int64_t begin = 0; begin < out_width_; begin += kPixels) {
            const int64_t x = std::min(begin, out_width_ - kPixels);
            typename Lanes<wide>::Floats sum[kPixels] = {};
            const float* weight = weights.data();
            for (int64_t i = 0; i < kh_; ++i) {
              const float* seen = padded.data() + (y + i) * row_ + x * channels_;
              for (int64_t tap = 0; tap < line_; ++tap, weight += wide) {
                const auto w = lanes.Load(weight);
                for (int p = 0; p < kPixels; ++p) sum[p] += seen[p * channels_ + tap] * w;
              }
            }
            // In order: a pixel's empty lanes lie where the next one's values come.
            for (int p = 0; p < kPixels; ++p) lanes.Store(sum[p], &sums[(x + p) * features_]);
          }
          std::copy(sums.begin(), sums.end() - wide, maps + (image * out_height_ + y) * out_width_ * features_);
        }
      }
    }
  }

  // Adds what each output gives its window, a row at a time.
  void InputGrad(const float* grads, const float* kernel, float* images) const {
    constexpr Lanes<kMost> lanes;
    const int64_t long_line = (line_ + kMost - 1) / kMost * kMost;
    std::vector<float> weights(kh_ * features_ * long_line);
    for (int64_t tap = 0; tap < kh_ * line_; ++tap)
      for (int64_t o = 0; o < features_; ++o)
        weights[(tap / line_ * features_ + o) * long_line + tap % line_] = kernel[tap * features_ + o];
#pragma omp parallel
    {
      std::vector<float> padded = Zeros();
#pragma omp for schedule(static)
      for (int64_t image = 0; image < batch_; ++image) {
        std::fill(padded.begin(), padded.end(), 0.0f);
        const float* grad = grads + image * out_height_ * out_width_ * features_;
        for (int64_t y = 0; y < out_height_; ++y) {
          for (int64_t x = 0; x < out_width_; ++x, grad += features_) {
            for (int64_t i = 0; i < kh_; ++i) {
              float* to = &padded[(y + i) * row_ + x * channels_];
              const float* weight = &weights[i * features_ * long_line];
              for (int64_t part = 0; part < long_line; part += kMost) {
                auto sum = lanes.Load(to + part);
                for (int64_t o = 0; o < features_; ++o) sum += grad[o] * lanes.Load(weight + o * long_line + part);
                lanes.Store(sum, to + part);
              }
            }
          }
        }
        float* result = images + image * height_ * width_ * channels_;
        std::fill(result, result + height_ * width_ * channels_, 0.0f);
        Rows([&](int64_t here, int64_t there, int64_t some) { std::copy_n(&padded[there], some, result + here); });
      }
    }
  }

  template <int wide>
  void KernelGrad(Lanes<wide> lanes, const float* images, const float* grads, float* kernel) const {
    const int64_t taps = kh_ * line_;
    std::vector<int64_t> places((taps + kPixels - 1) / kPixels * kPixels);  // of taps, from a window's first pixel on
    for (int64_t tap = 0; tap < taps; ++tap) places[tap] = tap / line_ * row_ + tap % line_;
    const int64_t pixels = out_height_ * out_width_;
    std::vector<std::vector<float>> parts(omp_get_max_threads(), std::vector<float>(places.size() * wide));
#pragma omp parallel
    {
      std::vector<float> padded = Zeros(), &totals = parts[omp_get_thread_num()];
#pragma omp for schedule(static)
      for (int64_t image = 0; image < batch_; ++image) {
        Pad(images + image * height_ * width_ * channels_, padded);
        const std::vector<float> given = Apart(grads + image * pixels * features_, pixels, wide);
        for (size_t tap = 0; tap < places.size(); tap += kPixels) {
          typename Lanes<wide>::Floats sum[kPixels] = {};
          const float* g = given.data();
          for (int64_t y = 0; y < out_height_; ++y) {
            for (int64_t x = 0; x < out_width_; ++x, g += wide) {
              const auto grad = lanes.Load(g);
              const float* seen = padded.data() + y * row_ + x * channels_;
              for (int t = 0; t < kPixels; ++t) sum[t] += seen[places[tap + t]] * grad;
            }
          }
          for (int t = 0; t < kPixels; ++t) {
            float* total = &totals[(tap + t) * wide];
            lanes.Store(lanes.Load(total) + sum[t], total);
          }
        }
      }
    }
    std::fill(kernel, kernel + taps * features_, 0.0f);
    for (const std::vector<float>& part : parts)
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t o = 0; o < features_; ++o) kernel[tap * features_ + o] += part[tap * wide + o];
  }
};

// numbers: kind, strides, padding (top, bottom, left, right), groups, dilation.
ffi::Error Convolution(ffi::Buffer<ffi::F32> first, ffi::Buffer<ffi::F32> second, ffi::ResultBuffer<ffi::F32> result,
                       ffi::Span<const int64_t> numbers) {
  static std::map<std::vector<Numbers>, Plan> plans;
  try {
    const Numbers a = Copy(first.dimensions()), b = Copy(second.dimensions()), c = Copy(result->dimensions());
    const Numbers how = Copy(numbers);
    const int64_t kind = how[0], groups = how[7];
    const Numbers stride{how[1], how[2]}, padding{how.begin() + 3, how.begin() + 7}, dilation{how[8], how[9]};
    const Shapes shapes = kind == kConv ? Shapes{a, b, c} : kind == kInputGrad ? Shapes{c, b, a} : Shapes{a, c, b};
    if (Few::Fits(shapes, stride, dilation, groups)) {
      Few::Run(kind, shapes, padding, first.typed_data(), second.typed_data(), result->typed_data());
      return ffi::Error::Success();
    }
    const std::vector<Numbers> key{how, a, b, c};
    auto found = plans.find(key);
    if (found == plans.end()) {
      found = plans.emplace(key, MakePlan(kind, shapes, stride, padding, groups, dilation)).first;
    }
    Plan& plan = found->second;
    dnnl::stream stream(Engine());
    plan.first.given.set_data_handle(first.typed_data());
    plan.second.given.set_data_handle(second.typed_data());
    plan.result.given.set_data_handle(result->typed_data());
    for (Operand* operand : {&plan.first, &plan.second}) {
      if (operand->reorder) {
        operand->reorder.execute(stream, {{DNNL_ARG_FROM, operand->given}, {DNNL_ARG_TO, operand->used}});
      }
    }
    const dnnl::memory scratch(plan.scratch, Engine(), Scratch(plan.scratch.get_size()));
    plan.primitive.execute(stream, {{plan.roles[0], plan.first.used},
                                    {plan.roles[1], plan.second.used},
                                    {plan.roles[2], plan.result.used},
                                    {DNNL_ARG_SCRATCHPAD, scratch}});
    if (plan.result.reorder) {
      plan.result.reorder.execute(stream, {{DNNL_ARG_FROM, plan.result.used}, {DNNL_ARG_TO, plan.result.given}});
    }
    stream.wait();
  } catch (const std::exception& error) {  // dnnl::error, or no memory
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  }
  return ffi::Error::Success();
}

// Rows of (G, N, C) that are added in float32, in the first cache, before they join a sum in float64.
constexpr int64_t kBlock = 64;

// Calls block(group, first row, rows, sums) for blocks of a group's rows, and finish(group, sums) with the sums of all
// threads: sums are `many` times C float64. The same numbers for the same number of threads.
template <typename Block, typename Finish>
void OverRows(int64_t groups, int64_t rows, int64_t channels, int many, Block block, Finish finish) {
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  for (int64_t group = 0; group < groups; ++group) {
    const int threads = static_cast<int>(std::min<int64_t>(omp_get_max_threads(), (blocks + 3) / 4));
    std::vector<std::vector<double>> parts(threads, std::vector<double>(many * channels + 1));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; ++thread) {
      std::vector<float> some(many * channels);
      for (int64_t i = blocks * thread / threads; i < blocks * (thread + 1) / threads; ++i) {
        block(group, i * kBlock, std::min(kBlock, rows - i * kBlock), some, parts[thread]);
      }
    }
    finish(group, parts);
  }
}

// Mean and biased variance by Chan, Golub & LeVeque's rule for joining two samples: one pass over memory, and as exact
// as two.
struct Sample {
  double* mean;
  double* squares;  // sum of squared distances from the mean

  template <typename T>
  void Join(double own, double other, int64_t channels, const T* its_mean, const T* its_squares) {
    const double all = own + other;
    for (int64_t c = 0; c < channels; ++c) {
      const double step = its_mean[c] - mean[c];
      mean[c] += step * (other / all);
      squares[c] += its_squares[c] + step * step * (own * other / all);
    }
  }
};

ffi::Error Moments(ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::F32> mean, ffi::ResultBuffer<ffi::F32> var) {
  const int64_t groups = x.dimensions()[0], rows = x.dimensions()[1], channels = x.dimensions()[2];
  OverRows(
      groups, rows, channels, 2,
      [&](int64_t group, int64_t first, int64_t count, std::vector<float>& some, std::vector<double>& sums) {
        const float* from = x.typed_data() + (group * rows + first) * channels;
        float *middle = some.data(), *squares = middle + channels;
        std::fill(some.begin(), some.end(), 0.0f);
        for (int64_t r = 0; r < count; ++r)
          for (int64_t c = 0; c < channels; ++c) middle[c] += from[r * channels + c];
        for (int64_t c = 0; c < channels; ++c) middle[c] /= count;
        for (int64_t r = 0; r < count; ++r) {
          for (int64_t c = 0; c < channels; ++c) {
            const float off = from[r * channels + c] - middle[c];
            squares[c] += off * off;
          }
        }
        double& seen = sums[2 * channels];
        Sample{sums.data(), sums.data() + channels}.Join(seen, count, channels, middle, squares);
        seen += count;
      },
      [&](int64_t group, std::vector<std::vector<double>>& parts) {
        std::vector<double>& all = parts[0];
        double& seen = all[2 * channels];
        for (size_t i = 1; i < parts.size(); ++i) {
          const std::vector<double>& part = parts[i];
          Sample{all.data(), all.data() + channels}.Join(seen, part[2 * channels], channels, part.data(),
                                                         part.data() + channels);
          seen += part[2 * channels];
        }
        for (int64_t c = 0; c < channels; ++c) {
          mean->typed_data()[group * channels + c] = all[c];
          var->typed_data()[group * channels + c] = all[channels + c] / rows;
        }
      });
  return ffi::Error::Success();
}

ffi::Error Sums(ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> g, ffi::ResultBuffer<ffi::F32> products,
                ffi::ResultBuffer<ffi::F32> total) {
  const int64_t groups = x.dimensions()[0], rows = x.dimensions()[1], channels = x.dimensions()[2];
  OverRows(
      groups, rows, channels, 2,
      [&](int64_t group, int64_t first, int64_t count, std::vector<float>& some, std::vector<double>& sums) {
        const float* a = x.typed_data() + (group * rows + first) * channels;
        const float* b = g.typed_data() + (group * rows + first) * channels;
        float *dots = some.data(), *ones = dots + channels;
        std::fill(some.begin(), some.end(), 0.0f);
        for (int64_t r = 0; r < count; ++r) {
          for (int64_t c = 0; c < channels; ++c) {
            dots[c] += a[r * channels + c] * b[r * channels + c];
            ones[c] += b[r * channels + c];
          }
        }
        for (int64_t i = 0; i < 2 * channels; ++i) sums[i] += some[i];
      },
      [&](int64_t group, std::vector<std::vector<double>>& parts) {
        for (size_t i = 1; i < parts.size(); ++i)
          for (int64_t c = 0; c < 2 * channels; ++c) parts[0][c] += parts[i][c];
        for (int64_t c = 0; c < channels; ++c) {
          products->typed_data()[group * channels + c] = parts[0][c];
          total->typed_data()[group * channels + c] = parts[0][channels + c];
        }
      });
  return ffi::Error::Success();
}

// The windows of a pool over images (B, H, W, C); numbers: window, strides, pixels of padding above and on the left.
struct Windows {
  int64_t height, width, channels, out_height, out_width;
  int64_t kh, kw, sh, sw, top, left;

  Windows(ffi::Span<const int64_t> images, ffi::Span<const int64_t> maps, ffi::Span<const int64_t> numbers)
      : height(images[1]), width(images[2]), channels(images[3]), out_height(maps[1]), out_width(maps[2]),
        kh(numbers[0]), kw(numbers[1]), sh(numbers[2]), sw(numbers[3]), top(numbers[4]), left(numbers[5]) {}

  // Calls tap(offset of a pixel in its image) for the pixels of window (y, x) that are not padding, row by row.
  template <typename Tap>
  void Pixels(int64_t y, int64_t x, Tap tap) const {
    const int64_t first = y * sh - top, start = x * sw - left;
    for (int64_t i = std::max<int64_t>(first, 0); i < std::min(first + kh, height); ++i)
      for (int64_t j = std::max<int64_t>(start, 0); j < std::min(start + kw, width); ++j)
        tap((i * width + j) * channels);
  }
};

// Calls run(first channel, Lanes) for parts of the channels.
template <typename Run>
void InParts(int64_t channels, Run run) {
  int64_t c = 0;
  for (; c + 16 <= channels; c += 16) run(c, Lanes<16>());
  for (; c + 4 <= channels; c += 4) run(c, Lanes<4>());
  for (; c + 2 <= channels; c += 2) run(c, Lanes<2>());
  for (; c < channels; ++c) run(c, Lanes<1>());
}

ffi::Error WindowMax(ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::F32> y, ffi::Span<const int64_t> numbers) {
  const Windows of(x.dimensions(), y->dimensions(), numbers);
  const int64_t rows = x.dimensions()[0] * of.out_height;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float* image = x.typed_data() + row / of.out_height * of.height * of.width * of.channels;
    float* to = y->typed_data() + row * of.out_width * of.channels;
    for (int64_t column = 0; column < of.out_width; ++column, to += of.channels) {
      InParts(of.channels, [&](int64_t first, auto lanes) {
        auto best = lanes.All(-std::numeric_limits<float>::infinity());
        of.Pixels(row % of.out_height, column, [&](int64_t pixel) {
          const auto seen = lanes.Load(image + pixel + first);
          best = (best >= seen) | (best != best) ? best : seen;  // a NaN stays
        });
        lanes.Store(best, to + first);
      });
    }
  }
  return ffi::Error::Success();
}

ffi::Error WindowMaxGrad(ffi::Buffer<ffi::F32> g, ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::F32> dx,
                         ffi::Span<const int64_t> numbers) {
  const Windows of(x.dimensions(), g.dimensions(), numbers);
  const int64_t images = x.dimensions()[0], size = of.height * of.width * of.channels;
#pragma omp parallel for schedule(static)
  for (int64_t number = 0; number < images; ++number) {  // windows overlap, images do not
    const float* image = x.typed_data() + number * size;
    float* to = dx->typed_data() + number * size;
    std::fill(to, to + size, 0.0f);
    const float* from = g.typed_data() + number * of.out_height * of.out_width * of.channels;
    for (int64_t y = 0; y < of.out_height; ++y) {
      for (int64_t column = 0; column < of.out_width; ++column, from += of.channels) {
        InParts(of.channels, [&](int64_t first, auto lanes) {
          auto best = lanes.All(-std::numeric_limits<float>::infinity());
          typename decltype(lanes)::Numbers where{};
          int32_t tap = 0;
          of.Pixels(y, column, [&](int64_t pixel) {
            const auto seen = lanes.Load(image + pixel + first);
            where = seen > best ? decltype(where){} + tap : where;
            best = seen > best ? seen : best;
            ++tap;
          });
          const auto given = lanes.Load(from + first);
          tap = 0;
          of.Pixels(y, column, [&](int64_t pixel) {
            float* there = to + pixel + first;
            lanes.Store(lanes.Load(there) + (where == tap ? given : decltype(best){}), there);
            ++tap;
          });
        });
      }
    }
  }
  return ffi::Error::Success();
}

// `function` as XLA calls it, computed by the worker.
template <auto function>
struct Called;
template <typename... Arguments, ffi::Error (*function)(Arguments...)>
struct Called<function> {
  static ffi::Error Call(Arguments... arguments) {
    ffi::Error error = ffi::Error::Success();
    Worker::Get().Run([&] { error = function(arguments...); });
    return error;
  }
};

}  // namespace

using Array = ffi::Buffer<ffi::F32>;
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    convolution, Called<Convolution>::Call,
    ffi::Ffi::Bind().Arg<Array>().Arg<Array>().Ret<Array>().Attr<ffi::Span<const int64_t>>("numbers"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(moments, Called<Moments>::Call, ffi::Ffi::Bind().Arg<Array>().Ret<Array>().Ret<Array>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(sums, Called<Sums>::Call, ffi::Ffi::Bind().Arg<Array>().Arg<Array>().Ret<Array>().Ret<Array>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(window_max, Called<WindowMax>::Call,
                              ffi::Ffi::Bind().Arg<Array>().Ret<Array>().Attr<ffi::Span<const int64_t>>("numbers"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    window_max_grad, Called<WindowMaxGrad>::Call,
    ffi::Ffi::Bind().Arg<Array>().Arg<Array>().Ret<Array>().Attr<ffi::Span<const int64_t>>("numbers"));
