// Maxima over windows. float32, NHWC.

#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "lanes.h"
#include "threads.h"

namespace cnn_jax {

// The windows of a pool over images (B, H, W, C); numbers: window, strides, pixels of padding above and on the left.
struct Windows {
  int64_t height, width, channels, out_height, out_width;
  int64_t kh, kw, sh, sw, top, left;
  int64_t beyond;  // of a row's windows, from the left: a register may reach beyond the last channel of their pixels

  Windows(ffi::Span<const int64_t> images, ffi::Span<const int64_t> maps, ffi::Span<const int64_t> numbers)
      : height(images[1]),
        width(images[2]),
        channels(images[3]),
        out_height(maps[1]),
        out_width(maps[2]),
        kh(numbers[0]),
        kw(numbers[1]),
        sh(numbers[2]),
        sw(numbers[3]),
        top(numbers[4]),
        left(numbers[5]) {
    // What lies there are pixels of the same row, and what is written there is written again, by the next windows.
    const int64_t pixels = (kWidest / 2 - 2 + channels) / channels, room = width - pixels - kw + left;
    beyond = room < 0 ? 0 : std::min(out_width - pixels, room / sw + 1);
  }

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
};

// Calls run(first channel, Lanes) for parts of the channels; with `beyond` the last part may go beyond them.
template <typename Run>
void InParts(int64_t channels, bool beyond, Run run) {
  int64_t c = 0;
  for (; c + kWidest <= channels; c += kWidest) run(c, Lanes<kWidest>());
  if (beyond && c + kWidest / 2 < channels) return run(c, Lanes<kWidest>());
  if (beyond && c + kWidest / 4 < channels) return run(c, Lanes<kWidest / 2>());
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
        InParts(of.channels, column < of.beyond, [&](int64_t first, auto lanes) {
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
  Team(pool).Run(x.dimensions()[0] * of.out_height,
                 [&](int64_t, int64_t begin, int64_t end) { of.Sided([&](auto side) { rows(side, begin, end); }); });
  return ffi::Error::Success();
}

ffi::Error WindowMaxGrad(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> g, ffi::Buffer<ffi::F32> x,
                         ffi::ResultBuffer<ffi::F32> dx, ffi::Span<const int64_t> numbers) {
  const Windows of(x.dimensions(), g.dimensions(), numbers);
  const int64_t size = of.height * of.width * of.channels;
  const bool apart = of.sh >= of.kh && of.sw == of.kw;  // no pixel of a row is in two windows, or in none
  const bool whole = apart && of.channels < kWidest;    // a pixel is written at once, from left to right
  auto images = [&](auto side, int64_t begin, int64_t end) {
    for (int64_t number = begin; number < end; ++number) {
      const float* image = x.typed_data() + number * size;
      float* to = dx->typed_data() + number * size;
      if (!apart || !of.Whole()) std::fill(to, to + size, 0.0f);
      const float* from = g.typed_data() + number * of.out_height * of.out_width * of.channels;
      for (int64_t y = 0; y < of.out_height; ++y) {
        for (int64_t column = 0; column < of.out_width; ++column, from += of.channels) {
          InParts(of.channels, whole && column < of.beyond, [&](int64_t first, auto lanes) {
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
  Team(pool).Run(x.dimensions()[0],
                 [&](int64_t, int64_t begin, int64_t end) { of.Sided([&](auto side) { images(side, begin, end); }); });
  return ffi::Error::Success();
}

}  // namespace cnn_jax
