// Custom calls of XLA for a CPU (layers/native.py): convolutions by oneDNN, sums over all but the channels. float32.
//
// Images are NHWC and kernels HWIO, as everywhere in cnn_jax; oneDNN may take kernels in an order of its own, into which
// they are brought at each call: they are small beside the images.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dnnl.hpp"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Numbers = std::vector<int64_t>;
using Tag = dnnl::memory::format_tag;

// One thread that computes everything by OpenMP, one thing after the other, each on all cores. XLA calls from several
// threads, and OpenMP would keep a team of its own for each of them, whose members spin on the cores that another team needs.
class Worker {
 public:
  static Worker& Get() {
    static Worker* worker = new Worker;  // lives as long as the process
    at_work_ = true;
    return *worker;
  }

  // Whether anyone has asked for it.
  static bool AtWork() { return at_work_; }

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

  static inline std::atomic<bool> at_work_ = false;
  std::mutex turn_, lock_;
  std::condition_variable changed_;
  const std::function<void()>* work_ = nullptr;
};

constexpr int64_t kParts = 32;  // enough for some threads to end at about the same time

// Who does what needs no oneDNN: the calling thread and those of XLA's own that are free, of which it waits for none to
// wake up: what one comes too late for, others have done. Where oneDNN computes, it is OpenMP's threads: they spin for a
// while after each convolution, and others would not get a core (ResNet-50's step took 1.16 times as long).
class Team {
 public:
  explicit Team(ffi::ThreadPool& pool) : pool_(pool), size_(std::max<int64_t>(1, pool.num_threads())) {}

  // Calls work(part, first, end) for at most kParts parts of `count` things, the same ones for any number of threads.
  template <typename Work>
  void Run(int64_t count, const Work& work) const {
    const int64_t parts = std::min(count, kParts);
    auto one = [&](int64_t part) { work(part, count * part / parts, count * (part + 1) / parts); };
    if (Worker::AtWork()) {
      return Worker::Get().Run([&] {
#pragma omp parallel for schedule(static)
        for (int64_t part = 0; part < parts; ++part) one(part);
      });
    }
    struct Shared {
      std::atomic<int64_t> next, left;
    };
    auto shared = std::make_shared<Shared>();  // who comes too late still looks at it
    shared->next = 0;
    shared->left = parts;
    auto help = [shared, &one, parts] {
      for (int64_t part; (part = shared->next++) < parts; --shared->left) one(part);
    };
    for (int64_t i = 1; i < std::min(size_, parts); ++i) pool_.Schedule(std::function<void()>(help));
    help();
    while (shared->left > 0) std::this_thread::yield();
  }

 private:
  ffi::ThreadPool& pool_;
  const int64_t size_;
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

  // Lane l of register r becomes lane r of register l.
  static void Transpose(Floats (&of)[count]) { Swap<1>(of); }

 private:
  using Every = std::make_integer_sequence<int32_t, count>;

  // Exchanges what stands `step` lanes from the diagonal, in blocks of so many.
  template <int32_t step>
  static void Swap(Floats (&of)[count]) {
    if constexpr (step < count) {
      for (int r = 0; r < count; ++r)
        if (!(r & step)) Exchange<step>(of[r], of[r + step], Every());
      Swap<2 * step>(of);
    }
  }

  template <int32_t step, int32_t... lane>
  static void Exchange(Floats& a, Floats& b, std::integer_sequence<int32_t, lane...>) {
#if __has_builtin(__builtin_shufflevector)
    const Floats first = __builtin_shufflevector(a, b, (lane & step ? count + lane - step : lane)...);
    b = __builtin_shufflevector(a, b, (lane & step ? count + lane : lane + step)...);
    a = first;
#else  // GCC before 12
    float first[count], second[count];
    Store(a, first);
    Store(b, second);
    ((lane & step ? void() : std::swap(first[lane + step], second[lane])), ...);
    a = Load(first);
    b = Load(second);
#endif
  }
};

// Convolutions of stride 1 over few channels, as LeNet has them. oneDNN computes blocks of 8 or 16 channels, and most of
// those are empty there. Either all features of a pixel lie side by side in one register, or it has a lane for each of 16
// images, which costs bringing them there.
class Few {
 public:
  // numbers as for Convolve.
  static bool Fits(const Shapes& of, const Numbers& how) {
    const Few few(of, how);
    const int64_t channels = of.kernel[2], features = of.kernel[3];
    const bool narrow = channels <= kMost && features <= kMost && (channels % kMost || features % kMost);
    const bool plain = how[1] == 1 && how[2] == 1 && how[7] == 1 && how[8] == 1 && how[9] == 1;
    const bool inside = few.top_ < few.kh_ && how[4] < few.kh_ && few.left_ < few.kw_ && how[6] < few.kw_;
    return narrow && plain && inside && of.maps[2] >= kPixels && of.images[2] >= kSome;
  }

  static void Run(const Team& team, const Shapes& of, const Numbers& how, const float* first, const float* second,
                  float* result) {
    const Few few(of, how);
    auto by_feature = [&](auto lanes) {
      how[0] == kConv ? few.ConvByFeature(team, lanes, first, second, result)
                      : few.KernelGradByFeature(team, lanes, first, second, result);
    };
    auto by_image = [&](auto lanes) {
      how[0] == kConv        ? few.ConvByImage(team, lanes, first, second, result)
      : how[0] == kInputGrad ? few.InputGradByImage(team, lanes, first, second, result)
                             : few.KernelGradByImage(team, lanes, first, second, result);
    };
    if (how[0] != kInputGrad && few.features_ > 8) return by_feature(Lanes<kMost>());
    if (how[0] != kInputGrad && few.batch_ < 8) return by_feature(Lanes<8>());
    few.batch_ < 2 * kLanes ? by_image(Lanes<8>()) : by_image(Lanes<kLanes>());
  }

 private:
  static constexpr int kMost = 16;     // channels
  static constexpr int kCache = 6144;  // floats in half of a first cache
  // Sums that are made at once: of kPixels pixels or taps and all features, which are a register or two; or of kSome
  // pixels or taps and kBlock features, each a register for kLanes images.
  static constexpr int kBlock = 6;
#ifdef __AVX512F__
  static constexpr int kLanes = 16, kPixels = 10, kSome = 4;
#else
  static constexpr int kLanes = 8, kPixels = 5, kSome = 2;
#endif

  int64_t batch_, height_, width_, channels_, out_height_, out_width_, features_, kh_, kw_, top_, left_;
  int64_t line_, row_;  // floats of a kernel's row for one output, of a padded image's row

  Few(const Shapes& of, const Numbers& how)
      : batch_(of.images[0]), height_(of.images[1]), width_(of.images[2]), channels_(of.images[3]),
        out_height_(of.maps[1]), out_width_(of.maps[2]), features_(of.maps[3]), kh_(of.kernel[0]), kw_(of.kernel[1]),
        top_(how[3]), left_(how[5]), line_(kw_ * channels_), row_((out_width_ + kw_ - 1) * channels_) {}

  // The convolution, of the same kernel turned round, that is the gradient for its images.
  Few Turned() const {
    Few other = *this;
    std::swap(other.height_, other.out_height_);
    std::swap(other.width_, other.out_width_);
    std::swap(other.channels_, other.features_);
    other.top_ = kh_ - 1 - top_;
    other.left_ = kw_ - 1 - left_;
    other.line_ = kw_ * other.channels_;
    other.row_ = (other.out_width_ + kw_ - 1) * other.channels_;
    return other;
  }

  enum Use { kPadded, kRow, kSums, kUses };

  // Zeros in memory that this thread keeps: what is new at each call has to be asked of the system.
  static float* Zeros(Use use, int64_t count) {
    static thread_local std::vector<float> rooms[kUses];
    rooms[use].assign(count, 0.0f);
    return rooms[use].data();
  }

  // Room for a padded image, or for a lane of each of `lanes`.
  float* Padded(int64_t lanes = 1) const {
    return Zeros(kPadded, ((out_height_ + kh_ - 1) * row_ + kMost) * lanes);
  }

  // Calls copy(floats of an image, the same in the padded one, how many) for its rows that these rows of outputs see.
  template <typename Copy>
  void Rows(int64_t first, int64_t end, Copy copy) const {
    const int64_t some = std::min(width_ * channels_, row_ - left_ * channels_);
    for (int64_t y = std::max<int64_t>(0, first - top_); y < std::min(height_, end + kh_ - 1 - top_); ++y)
      copy(y * width_ * channels_, (y + top_) * row_ + left_ * channels_, some);
  }

  void Pad(const float* image, float* padded) const {
    Rows(0, out_height_, [&](int64_t here, int64_t there, int64_t some) {
      std::copy_n(image + here, some, &padded[there]);
    });
  }

  // `some` floats of `count` arrays, `apart` from each other: side by side, lane by lane.
  template <int lanes>
  static void ToLanes(const float* from, int64_t apart, int64_t count, int64_t some, float* to) {
    using L = Lanes<lanes>;
    int64_t i = 0;
    for (; i + lanes <= some; i += lanes) {
      typename L::Floats values[lanes] = {};
      for (int64_t n = 0; n < count; ++n) values[n] = L::Load(from + n * apart + i);
      L::Transpose(values);
      for (int v = 0; v < lanes; ++v) L::Store(values[v], to + (i + v) * lanes);
    }
    for (; i < some; ++i)
      for (int64_t n = 0; n < count; ++n) to[i * lanes + n] = from[n * apart + i];
  }

  template <int lanes>
  static void FromLanes(const float* from, int64_t apart, int64_t count, int64_t some, float* to) {
    using L = Lanes<lanes>;
    int64_t i = 0;
    for (; i + lanes <= some; i += lanes) {
      typename L::Floats values[lanes];
      for (int v = 0; v < lanes; ++v) values[v] = L::Load(from + (i + v) * lanes);
      L::Transpose(values);
      for (int64_t n = 0; n < count; ++n) L::Store(values[n], to + n * apart + i);
    }
    for (; i < some; ++i)
      for (int64_t n = 0; n < count; ++n) to[n * apart + i] = from[i * lanes + n];
  }

  // Calls work(part, first image, how many, rows of outputs from, to) for as many images as there are lanes and for what
  // is left, half a map at a time.
  template <typename Work>
  void InBlocks(const Team& team, int64_t lanes, Work work) const {
    team.Run(Halves(lanes), [&](int64_t part, int64_t first, int64_t end) {
      for (int64_t half = first; half < end; ++half) {
        const int64_t image = half / 2 * lanes, middle = out_height_ / 2;
        work(part, image, std::min(lanes, batch_ - image), half % 2 ? middle : 0, half % 2 ? out_height_ : middle);
      }
    });
  }

  int64_t Halves(int64_t lanes) const { return 2 * ((batch_ + lanes - 1) / lanes); }

  template <int lanes>
  void ConvByImage(const Team& team, Lanes<lanes>, const float* images, const float* kernel, float* maps) const {
    using L = Lanes<lanes>;
    const int64_t blocks = (features_ + kBlock - 1) / kBlock, taps = kh_ * line_, size = height_ * width_ * channels_;
    std::vector<float> weights(blocks * taps * kBlock);
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t o = 0; o < features_; ++o)
        weights[(o / kBlock * taps + tap) * kBlock + o % kBlock] = kernel[tap * features_ + o];
    const int64_t wide = out_width_ * features_;  // of a row of a map
    InBlocks(team, lanes, [&](int64_t, int64_t image, int64_t count, int64_t first, int64_t end) {
      float *padded = Padded(lanes), *sums = Zeros(kRow, wide * lanes);
      Rows(first, end, [&](int64_t here, int64_t there, int64_t some) {
        ToLanes<lanes>(images + image * size + here, size, count, some, &padded[there * lanes]);
      });
      for (int64_t y = first; y < end; ++y) {
        const int64_t above = std::max<int64_t>(0, top_ - y), below = std::min(kh_, top_ + height_ - y);
        for (int64_t begin = 0; begin < out_width_; begin += kSome) {
          const int64_t x = std::min(begin, out_width_ - kSome);
          // What is padding for all of these pixels is left out.
          const int64_t from = std::max<int64_t>(0, left_ - x - kSome + 1) * channels_;
          const int64_t to = std::min(kw_, left_ + width_ - x) * channels_;
          for (int64_t block = 0; block < blocks; ++block) {
            typename L::Floats sum[kSome][kBlock] = {};
            for (int64_t i = above; i < below; ++i) {
              const float* seen = &padded[((y + i) * row_ + x * channels_) * lanes];
              const float* weight = &weights[(block * taps + i * line_) * kBlock];
              for (int64_t tap = from; tap < to; ++tap) {
                for (int p = 0; p < kSome; ++p) {
                  const auto pixel = L::Load(seen + (p * channels_ + tap) * lanes);
                  for (int o = 0; o < kBlock; ++o) sum[p][o] += pixel * weight[tap * kBlock + o];
                }
              }
            }
            for (int p = 0; p < kSome; ++p)
              for (int64_t o = 0; o < std::min<int64_t>(kBlock, features_ - block * kBlock); ++o)
                L::Store(sum[p][o], &sums[((x + p) * features_ + block * kBlock + o) * lanes]);
          }
        }
        const int64_t map = out_height_ * wide;
        FromLanes<lanes>(sums, map, count, wide, maps + image * map + y * wide);
      }
    });
  }

  template <int lanes>
  void InputGradByImage(const Team& team, Lanes<lanes> how, const float* grads, const float* kernel, float* images) const {
    std::vector<float> turned(kh_ * line_ * features_);
    for (int64_t tap = 0; tap < kh_ * kw_; ++tap)
      for (int64_t c = 0; c < channels_; ++c)
        for (int64_t o = 0; o < features_; ++o)
          turned[((kh_ * kw_ - 1 - tap) * features_ + o) * channels_ + c] = kernel[(tap * channels_ + c) * features_ + o];
    Turned().ConvByImage(team, how, grads, turned.data(), images);
  }

  template <int lanes>
  void KernelGradByImage(const Team& team, Lanes<lanes>, const float* images, const float* grads, float* kernel) const {
    using L = Lanes<lanes>;
    const int64_t taps = kh_ * line_, size = height_ * width_ * channels_, wide = out_width_ * features_;
    std::vector<int64_t> places((taps + kSome - 1) / kSome * kSome);  // of taps, from a window's first pixel on
    for (int64_t tap = 0; tap < taps; ++tap) places[tap] = (tap / line_ * row_ + tap % line_) * lanes;
    const int64_t many = places.size(), blocks = (features_ + kBlock - 1) / kBlock, all = blocks * many * kBlock * lanes;
    const int64_t strip = std::max<int64_t>(1, kCache / (wide * lanes));  // rows whose gradients stay in the first cache
    const int64_t parts = std::min(Halves(lanes), kParts);
    float* sums = Zeros(kSums, parts * all);
    InBlocks(team, lanes, [&](int64_t part, int64_t image, int64_t count, int64_t first, int64_t last) {
      float *padded = Padded(lanes), *given = Zeros(kRow, (strip * wide + kBlock) * lanes);
      Rows(first, last, [&](int64_t here, int64_t there, int64_t some) {
        ToLanes<lanes>(images + image * size + here, size, count, some, &padded[there * lanes]);
      });
      for (int64_t begin = first; begin < last; begin += strip) {
        const int64_t end = std::min(begin + strip, last), map = out_height_ * wide;
        ToLanes<lanes>(grads + image * map + begin * wide, map, count, (end - begin) * wide, given);
        float* total = sums + part * all;
        for (int64_t block = 0; block < blocks; ++block) {
          for (int64_t tap = 0; tap < many; tap += kSome, total += kSome * kBlock * lanes) {
            typename L::Floats sum[kSome][kBlock];
            for (int n = 0; n < kSome * kBlock; ++n) sum[n / kBlock][n % kBlock] = L::Load(total + n * lanes);
            const float* g = given + block * kBlock * lanes;
            for (int64_t y = begin; y < end; ++y) {
              const float* seen = padded + y * row_ * lanes;
              for (int64_t x = 0; x < out_width_; ++x, seen += channels_ * lanes, g += features_ * lanes) {
                typename L::Floats grad[kBlock];
                for (int o = 0; o < kBlock; ++o) grad[o] = L::Load(g + o * lanes);
                for (int t = 0; t < kSome; ++t) {
                  const auto pixel = L::Load(seen + places[tap + t]);
                  for (int o = 0; o < kBlock; ++o) sum[t][o] += pixel * grad[o];
                }
              }
            }
            for (int n = 0; n < kSome * kBlock; ++n) L::Store(sum[n / kBlock][n % kBlock], total + n * lanes);
          }
        }
      }
    });
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t o = 0; o < features_; ++o) {
        float total = 0;
        const float* from = sums + ((o / kBlock * many + tap) * kBlock + o % kBlock) * lanes;
        for (int64_t part = 0; part < parts; ++part)
          for (int n = 0; n < lanes; ++n) total += from[part * all + n];
        kernel[tap * features_ + o] = total;
      }
    }
  }

  template <int wide>
  void ConvByFeature(const Team& team, Lanes<wide> lanes, const float* images, const float* kernel, float* maps) const {
    std::vector<float> weights(kh_ * line_ * wide);
    for (int64_t tap = 0; tap < kh_ * line_; ++tap)
      std::copy_n(kernel + tap * features_, features_, &weights[tap * wide]);
    team.Run(batch_, [&](int64_t, int64_t first, int64_t end) {
      float *padded = Padded(), *sums = Zeros(kRow, out_width_ * features_ + wide);
      for (int64_t image = first; image < end; ++image) {
        Pad(images + image * height_ * width_ * channels_, padded);
        for (int64_t y = 0; y < out_height_; ++y) {
          for (int64_t begin = 0; begin < out_width_; begin += kPixels) {
            const int64_t x = std::min(begin, out_width_ - kPixels);
            typename Lanes<wide>::Floats sum[kPixels] = {};
            const float* weight = weights.data();
            for (int64_t i = 0; i < kh_; ++i) {
              const float* seen = padded + (y + i) * row_ + x * channels_;
              for (int64_t tap = 0; tap < line_; ++tap, weight += wide) {
                const auto w = lanes.Load(weight);
                for (int p = 0; p < kPixels; ++p) sum[p] += seen[p * channels_ + tap] * w;
              }
            }
            // In order: a pixel's empty lanes lie where the next one's values come.
            for (int p = 0; p < kPixels; ++p) lanes.Store(sum[p], &sums[(x + p) * features_]);
          }
          std::copy_n(sums, out_width_ * features_, maps + (image * out_height_ + y) * out_width_ * features_);
        }
      }
    });
  }

  template <int wide>
  void KernelGradByFeature(const Team& team, Lanes<wide> lanes, const float* images, const float* grads,
                           float* kernel) const {
    const int64_t taps = kh_ * line_, pixels = out_height_ * out_width_;
    std::vector<int64_t> places((taps + kPixels - 1) / kPixels * kPixels);  // of taps, from a window's first pixel on
    for (int64_t tap = 0; tap < taps; ++tap) places[tap] = tap / line_ * row_ + tap % line_;
    const int64_t many = places.size(), parts = std::min(batch_, kParts);
    float* sums = Zeros(kSums, parts * many * wide);
    team.Run(batch_, [&](int64_t part, int64_t first, int64_t end) {
      float *padded = Padded(), *given = Zeros(kRow, pixels * wide), *totals = sums + part * many * wide;
      for (int64_t image = first; image < end; ++image) {
        Pad(images + image * height_ * width_ * channels_, padded);
        for (int64_t pixel = 0; pixel < pixels; ++pixel)
          std::copy_n(grads + (image * pixels + pixel) * features_, features_, given + pixel * wide);
        for (int64_t tap = 0; tap < many; tap += kPixels) {
          typename Lanes<wide>::Floats sum[kPixels] = {};
          const float* g = given;
          for (int64_t y = 0; y < out_height_; ++y) {
            for (int64_t x = 0; x < out_width_; ++x, g += wide) {
              const auto grad = lanes.Load(g);
              const float* seen = padded + y * row_ + x * channels_;
              for (int t = 0; t < kPixels; ++t) sum[t] += seen[places[tap + t]] * grad;
            }
          }
          for (int t = 0; t < kPixels; ++t) {
            float* total = totals + (tap + t) * wide;
            lanes.Store(lanes.Load(total) + sum[t], total);
          }
        }
      }
    });
    std::fill(kernel, kernel + taps * features_, 0.0f);
    for (int64_t part = 0; part < parts; ++part)
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t o = 0; o < features_; ++o) kernel[tap * features_ + o] += sums[(part * many + tap) * wide + o];
  }
};

// By oneDNN; to be called by the worker. numbers: kind, strides, padding (top, bottom, left, right), groups, dilation.
void Convolve(const Shapes& shapes, const Numbers& how, float* first, float* second, float* result) {
  static std::map<std::vector<Numbers>, Plan> plans;
  const std::vector<Numbers> key{how, shapes.images, shapes.kernel, shapes.maps};
  auto found = plans.find(key);
  if (found == plans.end()) {
    const Numbers stride{how[1], how[2]}, padding{how.begin() + 3, how.begin() + 7}, dilation{how[8], how[9]};
    found = plans.emplace(key, MakePlan(how[0], shapes, stride, padding, how[7], dilation)).first;
  }
  Plan& plan = found->second;
  dnnl::stream stream(Engine());
  plan.first.given.set_data_handle(first);
  plan.second.given.set_data_handle(second);
  plan.result.given.set_data_handle(result);
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
}

ffi::Error Convolution(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> first, ffi::Buffer<ffi::F32> second,
                       ffi::ResultBuffer<ffi::F32> result, ffi::Span<const int64_t> numbers) {
  const Numbers a = Copy(first.dimensions()), b = Copy(second.dimensions()), c = Copy(result->dimensions());
  const Numbers how = Copy(numbers);
  const Shapes shapes = how[0] == kConv ? Shapes{a, b, c} : how[0] == kInputGrad ? Shapes{c, b, a} : Shapes{a, c, b};
  float *one = first.typed_data(), *two = second.typed_data(), *to = result->typed_data();
  if (Few::Fits(shapes, how)) {
    Few::Run(Team(pool), shapes, how, one, two, to);
    return ffi::Error::Success();
  }
  std::string failure;
  Worker::Get().Run([&] {
    try {
      Convolve(shapes, how, one, two, to);
    } catch (const std::exception& error) {  // dnnl::error, or no memory
      failure = std::string("oneDNN: ") + error.what();
    }
  });
  return failure.empty() ? ffi::Error::Success() : ffi::Error::Internal(failure);
}

// Rows of (G, N, C) that are added in float32, in the first cache, before they join a sum in float64.
constexpr int64_t kBlock = 64;

// Calls block(group, first row, rows, sums) for blocks of a group's rows, and finish(group, sums) with those of the
// group's parts: sums are `many` times C float64, and one more. The same numbers for any number of threads.
template <typename Block, typename Finish>
void OverRows(const Team& team, int64_t groups, int64_t rows, int64_t channels, int many, Block block, Finish finish) {
  const int64_t blocks = (rows + kBlock - 1) / kBlock, pieces = std::min(kParts, (blocks + 3) / 4);
  std::vector<std::vector<double>> sums(groups * pieces);
  team.Run(groups * pieces, [&](int64_t, int64_t first, int64_t end) {
    std::vector<float> some(many * channels);
    for (int64_t i = first; i < end; ++i) {
      const int64_t group = i / pieces, piece = i % pieces;
      sums[i].resize(many * channels + 1);
      for (int64_t b = blocks * piece / pieces; b < blocks * (piece + 1) / pieces; ++b)
        block(group, b * kBlock, std::min(kBlock, rows - b * kBlock), some, sums[i]);
    }
  });
  for (int64_t group = 0; group < groups; ++group) finish(group, &sums[group * pieces], pieces);
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

ffi::Error Moments(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::F32> mean, ffi::ResultBuffer<ffi::F32> var) {
  const int64_t groups = x.dimensions()[0], rows = x.dimensions()[1], channels = x.dimensions()[2];
  OverRows(
      Team(pool), groups, rows, channels, 2,
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
      [&](int64_t group, std::vector<double>* parts, int64_t pieces) {
        std::vector<double>& all = parts[0];
        double& seen = all[2 * channels];
        for (int64_t i = 1; i < pieces; ++i) {
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

ffi::Error Sums(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> g, ffi::ResultBuffer<ffi::F32> products,
                ffi::ResultBuffer<ffi::F32> total) {
  const int64_t groups = x.dimensions()[0], rows = x.dimensions()[1], channels = x.dimensions()[2];
  OverRows(
      Team(pool), groups, rows, channels, 2,
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
      [&](int64_t group, std::vector<double>* parts, int64_t pieces) {
        for (int64_t i = 1; i < pieces; ++i)
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
  int64_t sixteen;  // pixels that have 16 channels, or a few more

  Windows(ffi::Span<const int64_t> images, ffi::Span<const int64_t> maps, ffi::Span<const int64_t> numbers)
      : height(images[1]), width(images[2]), channels(images[3]), out_height(maps[1]), out_width(maps[2]),
        kh(numbers[0]), kw(numbers[1]), sh(numbers[2]), sw(numbers[3]), top(numbers[4]), left(numbers[5]),
        sixteen(16 / channels + 1) {}

  // Calls run(side) with the side of square windows, if there is no padding and that of few pixels, which are worth a
  // program of their own; else with 0.
  template <typename Run>
  void Sided(Run run) const {
    const bool inside = !top && !left && (out_height - 1) * sh + kh <= height && (out_width - 1) * sw + kw <= width;
    const int64_t side = inside && kh == kw ? kh : 0;
    if (side == 2) return run(std::integral_constant<int, 2>());
    if (side == 3) return run(std::integral_constant<int, 3>());
    run(std::integral_constant<int, 0>());
  }

  // Whether all of an image is in windows, if these lie side by side.
  bool Whole() const { return out_height * kh == height && out_width * kw == width; }

  // Calls tap(offset of a pixel in its image) for the pixels of window (y, x) that are not padding, row by row.
  template <int side, typename Tap>
  void Pixels(std::integral_constant<int, side>, int64_t y, int64_t x, Tap tap) const {
    const int64_t first = y * sh - top, start = x * sw - left;
    if constexpr (side > 0) {
      const int64_t corner = (first * width + start) * channels;
#pragma GCC unroll 9
      for (int i = 0; i < side * side; ++i) tap(corner + (i / side * width + i % side) * channels);
      return;
    }
    for (int64_t i = std::max<int64_t>(first, 0); i < std::min(first + kh, height); ++i)
      for (int64_t j = std::max<int64_t>(start, 0); j < std::min(start + kw, width); ++j)
        tap((i * width + j) * channels);
  }

  // Whether 16 floats more may be read behind the window's pixels, and as many may be written behind its maximum: the
  // windows whose those are come later, in the same row.
  bool Beyond(int64_t y, int64_t x) const {
    const int64_t row = std::min(y * sh - top + kh, height) - 1, column = std::min(x * sw - left + kw, width);
    return x + sixteen < out_width && (row * width + column) * channels + 16 <= height * width * channels;
  }
};

// Calls run(first channel, Lanes) for parts of the channels; with `beyond` the last part may go beyond them.
template <typename Run>
void InParts(int64_t channels, bool beyond, Run run) {
  int64_t c = 0;
  for (; c + 16 <= channels; c += 16) run(c, Lanes<16>());
  if (beyond && c + 8 < channels) return run(c, Lanes<16>());
  if (beyond && c + 4 < channels) return run(c, Lanes<8>());
  for (; c + 4 <= channels; c += 4) run(c, Lanes<4>());
  for (; c + 2 <= channels; c += 2) run(c, Lanes<2>());
  for (; c < channels; ++c) run(c, Lanes<1>());
}

ffi::Error WindowMax(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::F32> y,
                     ffi::Span<const int64_t> numbers) {
  const Windows of(x.dimensions(), y->dimensions(), numbers);
  auto rows = [&](auto side, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t number = row / of.out_height, top = row % of.out_height;
      const float* image = x.typed_data() + number * of.height * of.width * of.channels;
      float* to = y->typed_data() + row * of.out_width * of.channels;
      for (int64_t column = 0; column < of.out_width; ++column, to += of.channels) {
        InParts(of.channels, of.Beyond(top, column), [&](int64_t first, auto lanes) {
          auto best = lanes.All(-std::numeric_limits<float>::infinity());
          of.Pixels(side, top, column, [&](int64_t pixel) {
            const auto seen = lanes.Load(image + pixel + first);
            best = (best >= seen) | (best != best) ? best : seen;  // a NaN stays
          });
          lanes.Store(best, to + first);
        });
      }
    }
  };
  Team(pool).Run(x.dimensions()[0] * of.out_height, [&](int64_t, int64_t begin, int64_t end) {
    of.Sided([&](auto side) { rows(side, begin, end); });
  });
  return ffi::Error::Success();
}

ffi::Error WindowMaxGrad(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> g, ffi::Buffer<ffi::F32> x,
                         ffi::ResultBuffer<ffi::F32> dx, ffi::Span<const int64_t> numbers) {
  const Windows of(x.dimensions(), g.dimensions(), numbers);
  const int64_t size = of.height * of.width * of.channels;
  const bool apart = of.sh >= of.kh && of.sw == of.kw;  // no pixel of a row is in two windows, or in none
  const bool whole = apart && of.channels < 16;  // a pixel is written at once, from left to right
  auto images = [&](auto side, int64_t begin, int64_t end) {
    for (int64_t number = begin; number < end; ++number) {
      const float* image = x.typed_data() + number * size;
      float* to = dx->typed_data() + number * size;
      if (!apart || !of.Whole()) std::fill(to, to + size, 0.0f);
      const float* from = g.typed_data() + number * of.out_height * of.out_width * of.channels;
      for (int64_t y = 0; y < of.out_height; ++y) {
        for (int64_t column = 0; column < of.out_width; ++column, from += of.channels) {
          InParts(of.channels, whole && of.Beyond(y, column), [&](int64_t first, auto lanes) {
            auto best = lanes.All(-std::numeric_limits<float>::infinity());
            typename decltype(lanes)::Numbers where{};
            int32_t tap = 0;
            of.Pixels(side, y, column, [&](int64_t pixel) {
              const auto seen = lanes.Load(image + pixel + first);
              where = seen > best ? decltype(where){} + tap : where;
              best = seen > best ? seen : best;
              ++tap;
            });
            const auto given = lanes.Load(from + first);
            tap = 0;
            of.Pixels(side, y, column, [&](int64_t pixel) {
              float* there = to + pixel + first;
              const auto own = where == tap ? given : decltype(best){};
              lanes.Store(apart ? own : lanes.Load(there) + own, there);
              ++tap;
            });
          });
        }
      }
    }
  };
  Team(pool).Run(x.dimensions()[0], [&](int64_t, int64_t begin, int64_t end) {
    of.Sided([&](auto side) { images(side, begin, end); });
  });
  return ffi::Error::Success();
}

}  // namespace

using Array = ffi::Buffer<ffi::F32>;
using Pool = ffi::ThreadPool;
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    convolution, Convolution,
    ffi::Ffi::Bind().Ctx<Pool>().Arg<Array>().Arg<Array>().Ret<Array>().Attr<ffi::Span<const int64_t>>("numbers"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(moments, Moments, ffi::Ffi::Bind().Ctx<Pool>().Arg<Array>().Ret<Array>().Ret<Array>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    sums, Sums, ffi::Ffi::Bind().Ctx<Pool>().Arg<Array>().Arg<Array>().Ret<Array>().Ret<Array>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    window_max, WindowMax,
    ffi::Ffi::Bind().Ctx<Pool>().Arg<Array>().Ret<Array>().Attr<ffi::Span<const int64_t>>("numbers"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    window_max_grad, WindowMaxGrad,
    ffi::Ffi::Bind().Ctx<Pool>().Arg<Array>().Arg<Array>().Ret<Array>().Attr<ffi::Span<const int64_t>>("numbers"));
