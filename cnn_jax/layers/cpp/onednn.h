// Convolutions by oneDNN. float32, images NHWC and kernels HWIO, as everywhere in cnn_jax; oneDNN may take kernels in
// an order of its own, into which they are brought at each call: they are small beside the images.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <vector>

#include "dnnl.hpp"

namespace cnn_jax {

using Numbers = std::vector<int64_t>;
using Tag = dnnl::memory::format_tag;

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
  const memory::dims dims =
      groups == 1 ? memory::dims{k[3], k[2], k[0], k[1]} : memory::dims{groups, k[3] / groups, k[2], k[0], k[1]};
  const memory::desc images = nhwc(of.images), maps = nhwc(of.maps), any(dims, f32, Tag::any),
                     kernel(dims, f32, groups == 1 ? Tag::hwio : Tag::hwigo);
  const memory::dims low{padding[0], padding[2]}, high{padding[1], padding[3]};
  const memory::dims gaps{dilation[0] - 1, dilation[1] - 1};  // pixels from tap to tap that are left out
  const auto direct = dnnl::algorithm::convolution_direct;
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);

  const auto forward = kind == kConv ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training;
  dnnl::convolution_forward::primitive_desc conv(Engine(), forward, direct, images, any, maps, stride, gaps, low, high,
                                                 attributes);
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

}  // namespace cnn_jax
