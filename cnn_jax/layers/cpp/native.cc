// Custom calls of XLA for a CPU (layers/native.py). One program, of which the headers are parts.

#include <exception>
#include <string>

#include "few.h"
#include "onednn.h"
#include "sums.h"
#include "threads.h"
#include "windows.h"

namespace cnn_jax {

Numbers Copy(ffi::Span<const int64_t> values) { return Numbers(values.begin(), values.end()); }

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

}  // namespace cnn_jax

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32>;
using Pool = ffi::ThreadPool;
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    convolution, cnn_jax::Convolution,
    ffi::Ffi::Bind().Ctx<Pool>().Arg<Array>().Arg<Array>().Ret<Array>().Attr<ffi::Span<const int64_t>>("numbers"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(moments, cnn_jax::Moments,
                              ffi::Ffi::Bind().Ctx<Pool>().Arg<Array>().Ret<Array>().Ret<Array>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(sums, cnn_jax::Sums,
                              ffi::Ffi::Bind().Ctx<Pool>().Arg<Array>().Arg<Array>().Ret<Array>().Ret<Array>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    window_max, cnn_jax::WindowMax,
    ffi::Ffi::Bind().Ctx<Pool>().Arg<Array>().Ret<Array>().Attr<ffi::Span<const int64_t>>("numbers"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    window_max_grad, cnn_jax::WindowMaxGrad,
    ffi::Ffi::Bind().Ctx<Pool>().Arg<Array>().Arg<Array>().Ret<Array>().Attr<ffi::Span<const int64_t>>("numbers"));
