// Moments and sums over all but the channels. float32.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "threads.h"

namespace cnn_jax {

// Rows of (G, N, C) that are added in float32, in the first cache, before they join a sum in float64.
constexpr int64_t kTogether = 64;

// Calls block(group, first row, rows, sums) for blocks of a group's rows, and finish(group, sums) with those of the
// group's parts: sums are `many` times C float64, and one more. The same numbers for any number of threads.
template <typename Block, typename Finish>
void OverRows(const Team& team, int64_t groups, int64_t rows, int64_t channels, int many, Block block, Finish finish) {
  const int64_t blocks = (rows + kTogether - 1) / kTogether, pieces = std::min(kParts, (blocks + 3) / 4);
  std::vector<std::vector<double>> sums(groups * pieces);
  team.Run(groups * pieces, [&](int64_t, int64_t first, int64_t end) {
    std::vector<float> some(many * channels);
    for (int64_t i = first; i < end; ++i) {
      const int64_t group = i / pieces, piece = i % pieces;
      sums[i].resize(many * channels + 1);
      for (int64_t b = blocks * piece / pieces; b < blocks * (piece + 1) / pieces; ++b)
        block(group, b * kTogether, std::min(kTogether, rows - b * kTogether), some, sums[i]);
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

ffi::Error Moments(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::F32> mean,
                   ffi::ResultBuffer<ffi::F32> var) {
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

ffi::Error Sums(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> g,
                ffi::ResultBuffer<ffi::F32> products, ffi::ResultBuffer<ffi::F32> total) {
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

}  // namespace cnn_jax
