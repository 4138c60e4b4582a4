// Convolutions over few channels by loops of our own.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lanes.h"
#include "onednn.h"
#include "threads.h"

namespace cnn_jax {

// Convolutions of stride 1 over few channels, as LeNet has them. oneDNN computes blocks of 8 or 16 channels, and most
// of those are empty there. Either all features of a pixel lie side by side in one register, or it has a lane for each
// of 16 images, which costs bringing them there.
class Few {
 public:
  // numbers as for Convolve.
  static bool Fits(const Shapes& of, const Numbers& how) {
    const Few few(of, how);
    const int64_t channels = of.kernel[2], features = of.kernel[3];
    const bool narrow = channels <= kMost && features <= kMost && (channels % kMost || features % kMost);
    const bool plain = how[1] == 1 && how[2] == 1 && how[7] == 1 && how[8] == 1 && how[9] == 1;
    const auto inside = [&](int64_t pad, int64_t side) { return 0 <= pad && pad < side; };
    const bool padded =
        inside(how[3], few.kh_) && inside(how[4], few.kh_) && inside(how[5], few.kw_) && inside(how[6], few.kw_);
    return narrow && plain && padded && of.maps[2] >= kPixels && of.images[2] >= kSome;
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
    few.batch_ < 2 * kWidest ? by_image(Lanes<8>()) : by_image(Lanes<kWidest>());
  }

 private:
  static constexpr int kMost = 16;     // channels
  static constexpr int kCache = 6144;  // floats in half of a first cache
  // Sums that are made at once: of kPixels pixels or taps and all features, which are a register or two; or of kSome
  // pixels or taps and kBlock features, each a register for kWidest images.
  static constexpr int kBlock = 6;
#ifdef __AVX512F__
  static constexpr int kPixels = 10, kSome = 4;
#else
  static constexpr int kPixels = 5, kSome = 2;
#endif

  int64_t batch_, height_, width_, channels_, out_height_, out_width_, features_, kh_, kw_, top_, left_;
  int64_t line_, row_;  // floats of a kernel's row for one output, of a padded image's row

  Few(const Shapes& of, const Numbers& how)
      : batch_(of.images[0]),
        height_(of.images[1]),
        width_(of.images[2]),
        channels_(of.images[3]),
        out_height_(of.maps[1]),
        out_width_(of.maps[2]),
        features_(of.maps[3]),
        kh_(of.kernel[0]),
        kw_(of.kernel[1]),
        top_(how[3]),
        left_(how[5]),
        line_(kw_ * channels_),
        row_((out_width_ + kw_ - 1) * channels_) {}

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
  float* Padded(int64_t lanes = 1) const { return Zeros(kPadded, ((out_height_ + kh_ - 1) * row_ + kMost) * lanes); }

  // Calls copy(floats of an image, the same in the padded one, how many) for its rows that these rows of outputs see.
  template <typename Copy>
  void Rows(int64_t first, int64_t end, Copy copy) const {
    const int64_t some = std::min(width_ * channels_, row_ - left_ * channels_);
    for (int64_t y = std::max<int64_t>(0, first - top_); y < std::min(height_, end + kh_ - 1 - top_); ++y)
      copy(y * width_ * channels_, (y + top_) * row_ + left_ * channels_, some);
  }

  void Pad(const float* image, float* padded) const {
    Rows(0, out_height_,
         [&](int64_t here, int64_t there, int64_t some) { std::copy_n(image + here, some, &padded[there]); });
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

  // Calls work(part, first image, how many, rows of outputs from, to) for as many images as there are lanes and for
  // what is left, half a map at a time.
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
                typename L::Floats pixel[kSome];
                for (int p = 0; p < kSome; ++p) pixel[p] = L::Load(seen + (p * channels_ + tap) * lanes);
                for (int o = 0; o < kBlock; ++o)
                  for (int p = 0; p < kSome; ++p) sum[p][o] += pixel[p] * weight[tap * kBlock + o];
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
  void InputGradByImage(const Team& team, Lanes<lanes> how, const float* grads, const float* kernel,
                        float* images) const {
    std::vector<float> turned(kh_ * line_ * features_);
    for (int64_t tap = 0; tap < kh_ * kw_; ++tap)
      for (int64_t c = 0; c < channels_; ++c)
        for (int64_t o = 0; o < features_; ++o)
          turned[((kh_ * kw_ - 1 - tap) * features_ + o) * channels_ + c] =
              kernel[(tap * channels_ + c) * features_ + o];
    Turned().ConvByImage(team, how, grads, turned.data(), images);
  }

  template <int lanes>
  void KernelGradByImage(const Team& team, Lanes<lanes>, const float* images, const float* grads, float* kernel) const {
    using L = Lanes<lanes>;
    const int64_t taps = kh_ * line_, size = height_ * width_ * channels_, wide = out_width_ * features_;
    std::vector<int64_t> places((taps + kSome - 1) / kSome * kSome);  // of taps, from a window's first pixel on
    for (int64_t tap = 0; tap < taps; ++tap) places[tap] = (tap / line_ * row_ + tap % line_) * lanes;
    const int64_t many = places.size(), blocks = (features_ + kBlock - 1) / kBlock,
                  all = blocks * many * kBlock * lanes;
    const int64_t strip =
        std::max<int64_t>(1, kCache / (wide * lanes));  // rows whose gradients stay in the first cache
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
                typename L::Floats pixel[kSome];
                for (int t = 0; t < kSome; ++t) pixel[t] = L::Load(seen + places[tap + t]);
                for (int o = 0; o < kBlock; ++o) {
                  const auto grad = L::Load(g + o * lanes);
                  for (int t = 0; t < kSome; ++t) sum[t][o] += pixel[t] * grad;
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
        const float* from = sums + ((o / kBlock * many + tap) * kBlock + o % kBlock) * lanes;
        typename L::Floats total{};
        for (int64_t part = 0; part < parts; ++part) total += L::Load(from + part * all);
        kernel[tap * features_ + o] = 0;
        for (int n = 0; n < lanes; ++n) kernel[tap * features_ + o] += total[n];
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

}  // namespace cnn_jax
