// Derivatives of every order: the backward of each operator is made of the others, which are themselves differentiable.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace haar {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

template <class Signature>
auto handle(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

std::tuple<Tensor, Tensor> dwt(const Tensor& x) {
  static const auto op = handle<std::tuple<Tensor, Tensor>(const Tensor&)>("wavegan_cpu::dwt");
  return op.call(x);
}

Tensor idwt(const Tensor& low, const Tensor& high) {
  static const auto op = handle<Tensor(const Tensor&, const Tensor&)>("wavegan_cpu::idwt");
  return op.call(low, high);
}

Tensor fuse(const Tensor& base, const Tensor& low, const Tensor& high, const Tensor& lam) {
  static const auto op = handle<Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&)>("wavegan_cpu::fuse");
  return op.call(base, low, high, lam);
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Gradients fuse_backward(const Tensor& grad, const Tensor& base, const Tensor& low, const Tensor& high, const Tensor& lam) {
  using Signature = Gradients(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&);
  static const auto op = handle<Signature>("wavegan_cpu::fuse_backward");
  return op.call(grad, base, low, high, lam);
}

struct Dwt : Function<Dwt> {
  static Tensors forward(AutogradContext*, const Tensor& x) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [low, high] = dwt(x);
    return {low, high};
  }
  static Tensors backward(AutogradContext*, Tensors grads) { return {idwt(grads[0], grads[1])}; }
};

struct Idwt : Function<Idwt> {
  static Tensor forward(AutogradContext*, const Tensor& low, const Tensor& high) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return idwt(low, high);
  }
  static Tensors backward(AutogradContext*, Tensors grads) {
    auto [low, high] = dwt(grads[0]);
    return {low, high};
  }
};

struct Fuse : Function<Fuse> {
  static Tensor forward(AutogradContext* context, const Tensor& base, const Tensor& low, const Tensor& high, const Tensor& lam) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({base, low, high, lam});
    return fuse(base, low, high, lam);
  }
  static Tensors backward(AutogradContext* context, Tensors grads) {
    const auto saved = context->get_saved_variables();
    auto [base, low, high, lam] = fuse_backward(grads[0], saved[0], saved[1], saved[2], saved[3]);
    return {base, low, high, lam};
  }
};

// What Fuse's backward computes is linear in grad, in lam and in (base, low, high).
struct FuseBackward : Function<FuseBackward> {
  static Tensors forward(AutogradContext* context, const Tensor& grad, const Tensor& base, const Tensor& low, const Tensor& high,
                         const Tensor& lam) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({grad, base, low, high, lam});
    auto [grad_base, grad_low, grad_high, grad_lam] = fuse_backward(grad, base, low, high, lam);
    return {grad_base, grad_low, grad_high, grad_lam};
  }
  static Tensors backward(AutogradContext* context, Tensors grads) {
    const auto saved = context->get_saved_variables();
    const Tensor &grad = saved[0], &base = saved[1], &low = saved[2], &high = saved[3], &lam = saved[4], &scale = grads[3];
    const Tensor of_grad = fuse(grads[0], grads[1], grads[2], lam) + scale * (idwt(low, high) - base);
    auto [grad_low, grad_high] = dwt(grad);
    const Tensor of_lam = std::get<3>(fuse_backward(grad, grads[0], grads[1], grads[2], lam));
    return {of_grad, -scale * grad, scale * grad_low, scale * grad_high, of_lam};
  }
};

// Whether the graph must know of this call. Refuses forward mode, as a tangent would be lost in silence, and what the dispatcher
// would find no kernel for without a word about the reason.
template <class... Inputs>
bool differentiates(const char* name, const Tensor& first, const Inputs&... others) {
  TORCH_CHECK_VALUE(first.layout() == at::kStrided && ((others.layout() == at::kStrided) && ...), name, ": wants a dense tensor, got a sparse one");
  TORCH_CHECK_VALUE(((others.device() == first.device()) && ...), name, ": tensors on ", first.device(), c10::str(", ", others.device())...,
                    "; make them equal");
  TORCH_CHECK_NOT_IMPLEMENTED(!first._fw_grad(0).defined() && !(others._fw_grad(0).defined() || ...), name,
                              ": no forward-mode derivative in the compiled kernels");
  return at::GradMode::is_enabled() && (first.requires_grad() || ... || others.requires_grad());
}

std::tuple<Tensor, Tensor> dwt_autograd(const Tensor& x) {
  if (differentiates("dwt", x)) {
    auto out = Dwt::apply(x);
    return {out[0], out[1]};
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return dwt(x);
}

Tensor idwt_autograd(const Tensor& low, const Tensor& high) {
  if (differentiates("idwt", low, high)) return Idwt::apply(low, high);
  at::AutoDispatchBelowADInplaceOrView guard;
  return idwt(low, high);
}

Tensor fuse_autograd(const Tensor& base, const Tensor& low, const Tensor& high, const Tensor& lam) {
  if (differentiates("fuse", base, low, high, lam)) return Fuse::apply(base, low, high, lam);
  at::AutoDispatchBelowADInplaceOrView guard;
  return fuse(base, low, high, lam);
}

Gradients fuse_backward_autograd(const Tensor& grad, const Tensor& base, const Tensor& low, const Tensor& high, const Tensor& lam) {
  if (differentiates("fuse_backward", grad, base, low, high, lam)) {
    auto out = FuseBackward::apply(grad, base, low, high, lam);
    return {out[0], out[1], out[2], out[3]};
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return fuse_backward(grad, base, low, high, lam);
}

}  // namespace

TORCH_LIBRARY_IMPL(wavegan_cpu, Autograd, library) {
  library.impl("dwt", dwt_autograd);
  library.impl("idwt", idwt_autograd);
  library.impl("fuse", fuse_autograd);
  library.impl("fuse_backward", fuse_backward_autograd);
}

}  // namespace haar
