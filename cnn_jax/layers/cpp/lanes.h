// Registers.

#pragma once

#include <cstdint>
#include <utility>

namespace cnn_jax {

// Floats of the widest register. A vector of more lies in memory, where every operation loads and stores it: with AVX2
// LeNet-5's second convolution took seven times as long, and its pool of 16 channels ten times.
#ifdef __AVX512F__
constexpr int kWidest = 16;
#else
constexpr int kWidest = 8;
#endif

// So many floats side by side in a register, by the vectors of GCC and Clang, which know what a comparison chooses.
template <int count>
struct Lanes {
  typedef float Floats __attribute__((vector_size(4 * count)));
  typedef float Anywhere __attribute__((vector_size(4 * count), aligned(4), may_alias));
  typedef int32_t Numbers __attribute__((vector_size(4 * count)));

  static Floats Load(const float* from) { return *reinterpret_cast<const Anywhere*>(from); }
  static void Store(const Floats& values, float* to) { *reinterpret_cast<Anywhere*>(to) = values; }
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

#ifndef __AVX512F__
// Two registers instead, for sums.
template <>
struct Lanes<16> {
  using Half = Lanes<8>;
  struct Floats {
    Half::Floats low, high;
    Floats& operator+=(const Floats& other) {
      low += other.low;
      high += other.high;
      return *this;
    }
    friend Floats operator+(Floats a, const Floats& b) { return a += b; }
    friend Floats operator*(float a, const Floats& b) { return {a * b.low, a * b.high}; }
  };

  static Floats Load(const float* from) { return {Half::Load(from), Half::Load(from + 8)}; }
  static void Store(const Floats& values, float* to) {
    Half::Store(values.low, to);
    Half::Store(values.high, to + 8);
  }
};
#endif

}  // namespace cnn_jax
