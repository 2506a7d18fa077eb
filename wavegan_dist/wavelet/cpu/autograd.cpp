// Derivatives of every order of the operators wavegan_cpu::*. The backward of each operator is made of the other
// operators, which are differentiable themselves.
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
using torch::autograd::variable_list;
using FuseGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // of base, low, high and lam

template <class Signature>
auto find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

std::tuple<Tensor, Tensor> dwt(const Tensor& x) {
  static const auto op = find_operator<std::tuple<Tensor, Tensor>(const Tensor&)>("wavegan_cpu::dwt");
  return op.call(x);
}

Tensor idwt(const Tensor& low, const Tensor& high) {
  static const auto op = find_operator<Tensor(const Tensor&, const Tensor&)>("wavegan_cpu::idwt");
  return op.call(low, high);
}

Tensor fuse(const Tensor& base, const Tensor& low, const Tensor& high, const Tensor& lam) {
  using Signature = Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&);
  static const auto op = find_operator<Signature>("wavegan_cpu::fuse");
  return op.call(base, low, high, lam);
}

FuseGradients fuse_backward(const Tensor& grad, const Tensor& base, const Tensor& low, const Tensor& high,
                            const Tensor& lam) {
  using Signature = FuseGradients(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&);
  static const auto op = find_operator<Signature>("wavegan_cpu::fuse_backward");
  return op.call(grad, base, low, high, lam);
}

struct DwtFunction : Function<DwtFunction> {
  static variable_list forward(AutogradContext*, const Tensor& x) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [low, high] = dwt(x);
    return {low, high};
  }
  static variable_list backward(AutogradContext*, variable_list grads) { return {idwt(grads[0], grads[1])}; }
};

struct IdwtFunction : Function<IdwtFunction> {
  static Tensor forward(AutogradContext*, const Tensor& low, const Tensor& high) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return idwt(low, high);
  }
  static variable_list backward(AutogradContext*, variable_list grads) {
    auto [low, high] = dwt(grads[0]);
    return {low, high};
  }
};

struct FuseFunction : Function<FuseFunction> {
  static Tensor forward(AutogradContext* context, const Tensor& base, const Tensor& low, const Tensor& high,
                        const Tensor& lam) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({base, low, high, lam});
    return fuse(base, low, high, lam);
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    auto [base, low, high, lam] = fuse_backward(grads[0], saved[0], saved[1], saved[2], saved[3]);
    return {base, low, high, lam};
  }
};

// The double backward of fuse. fuse_backward is linear in grad, in lam and in (base, low, high).
struct FuseBackwardFunction : Function<FuseBackwardFunction> {
  static variable_list forward(AutogradContext* context, const Tensor& grad, const Tensor& base, const Tensor& low,
                               const Tensor& high, const Tensor& lam) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({grad, base, low, high, lam});
    auto [grad_base, grad_low, grad_high, grad_lam] = fuse_backward(grad, base, low, high, lam);
    return {grad_base, grad_low, grad_high, grad_lam};
  }
  // grads: the gradients of a scalar with respect to grad_base, grad_low, grad_high and grad_lam.
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const Tensor &grad = saved[0], &base = saved[1], &low = saved[2], &high = saved[3], &lam = saved[4];
    const Tensor &to_base = grads[0], &to_low = grads[1], &to_high = grads[2], &to_lam = grads[3];
    const Tensor of_grad = fuse(to_base, to_low, to_high, lam) + to_lam * (idwt(low, high) - base);
    auto [grad_low, grad_high] = dwt(grad);
    const Tensor of_lam = std::get<3>(fuse_backward(grad, to_base, to_low, to_high, lam));
    return {of_grad, -to_lam * grad, to_lam * grad_low, to_lam * grad_high, of_lam};
  }
};

// Returns whether autograd must record this call. Rejects forward-mode AD, which would otherwise lose the tangent
// silently, and mixed layouts and devices, for which the dispatcher would report a missing kernel instead of the
// reason.
template <class... Inputs>
bool needs_autograd(const char* name, const Tensor& first, const Inputs&... others) {
  TORCH_CHECK_VALUE(first.layout() == at::kStrided && ((others.layout() == at::kStrided) && ...), name,
                    ": expected a dense tensor, got a sparse one");
  TORCH_CHECK_VALUE(((others.device() == first.device()) && ...), name, ": tensors on ", first.device(),
                    c10::str(", ", others.device())..., "; make them equal");
  TORCH_CHECK_NOT_IMPLEMENTED(!first._fw_grad(0).defined() && !(others._fw_grad(0).defined() || ...), name,
                              ": no forward-mode derivative in the compiled kernels");
  return at::GradMode::is_enabled() && (first.requires_grad() || ... || others.requires_grad());
}

std::tuple<Tensor, Tensor> dwt_autograd(const Tensor& x) {
  if (needs_autograd("dwt", x)) {
    auto out = DwtFunction::apply(x);
    return {out[0], out[1]};
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return dwt(x);
}

Tensor idwt_autograd(const Tensor& low, const Tensor& high) {
  if (needs_autograd("idwt", low, high)) return IdwtFunction::apply(low, high);
  at::AutoDispatchBelowADInplaceOrView guard;
  return idwt(low, high);
}

Tensor fuse_autograd(const Tensor& base, const Tensor& low, const Tensor& high, const Tensor& lam) {
  if (needs_autograd("fuse", base, low, high, lam)) return FuseFunction::apply(base, low, high, lam);
  at::AutoDispatchBelowADInplaceOrView guard;
  return fuse(base, low, high, lam);
}

FuseGradients fuse_backward_autograd(const Tensor& grad, const Tensor& base, const Tensor& low, const Tensor& high,
                                     const Tensor& lam) {
  if (needs_autograd("fuse_backward", grad, base, low, high, lam)) {
    auto out = FuseBackwardFunction::apply(grad, base, low, high, lam);
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
