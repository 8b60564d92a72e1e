// exp and the activations, over the vectors of one instruction set (vec_*.h, included first).
#pragma once

#include <cstddef>

#include "engine.h"

namespace smp {
namespace {

constexpr size_t kPerBlock = 16 / kLanes;  // vectors of a block of 16 tokens

// exp to 2 ulp; 0 stays above the smallest normal number, NaN stays NaN.
inline F Exp(F x) {
  x = Min(Set1(88.0f), Max(Set1(-87.0f), x));
  const F n = Round(Mul(x, Set1(1.44269504088896341f)));
  // ln 2 in two parts, the first exact in few bits
  const F r = Fma(n, Set1(2.12194440e-4f), Fma(n, Set1(-0.693359375f), x));
  F p = Set1(1.9875691500e-4f);
  p = Fma(p, r, Set1(1.3981999507e-3f));
  p = Fma(p, r, Set1(8.3334519073e-3f));
  p = Fma(p, r, Set1(4.1665795894e-2f));
  p = Fma(p, r, Set1(1.6666665459e-1f));
  p = Fma(p, r, Set1(5.0000001201e-1f));
  p = Fma(Mul(r, r), p, Add(r, Set1(1.0f)));
  return ScaleByPowerOf2(p, n);
}

// 2 to the power of x to 8e-5: a polynomial for the fraction, fitted to the least relative error.
inline F ApproximatePowerOf2(F x) {
  F whole;
  const F r = Fraction(Max(Set1(-126.0f), x), &whole);
  F p = Set1(0.0780244916677475f);
  p = Fma(p, r, Set1(0.22606757283210754f));
  p = Fma(p, r, Set1(0.6958332061767578f));
  p = Fma(p, r, Set1(0.9999252557754517f));
  return ScaleByPowerOf2(p, whole);
}

// 1 / (1 + exp(-x))
inline F Sigmoid(F x) {  // of -87 and less, 1e-38
  return Div(Set1(1.0f), Add(Set1(1.0f), Exp(Sub(Set1(0.0f), x))));
}

// x times the normal distribution function. Abramowitz and Stegun 7.1.26: 1.5e-7 absolute.
inline F Gelu(F x) {
  const F z = Mul(Abs(x), Set1(0.70710678118654752f));
  const F t = Div(Set1(1.0f), Fma(z, Set1(0.3275911f), Set1(1.0f)));
  F p = Set1(1.061405429f);
  p = Fma(p, t, Set1(-1.453152027f));
  p = Fma(p, t, Set1(1.421413741f));
  p = Fma(p, t, Set1(-0.284496736f));
  p = Fma(p, t, Set1(0.254829592f));
  const F upper = Mul(Mul(Mul(p, t), Exp(Sub(Set1(0.0f), Mul(z, z)))), Set1(0.5f));
  return Mul(x, Select(x, Sub(Set1(1.0f), upper), upper));
}

// The same to 9e-5 for |x| < 3.7, and to 1e-4 |x| beyond: an odd polynomial, fitted to the least
// largest error of the product.
inline F ApproximateGelu(F x) {
  const F c = Min(Set1(3.7f), Max(Set1(-3.7f), x));
  const F u = Mul(c, c);
  F p = Set1(3.4785774261081315e-08f);
  p = Fma(p, u, Set1(-2.1584371552307857e-06f));
  p = Fma(p, u, Set1(5.8095334679819643e-05f));
  p = Fma(p, u, Set1(-0.0009035803959704936f));
  p = Fma(p, u, Set1(0.009167900308966637f));
  p = Fma(p, u, Set1(-0.06536426395177841f));
  p = Fma(p, u, Set1(0.3983997702598572f));
  return Mul(x, Fma(c, p, Set1(0.5f)));
}

inline F Activate(F x, Activation activation, bool approximate) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return approximate ? ApproximateGelu(x) : Gelu(x);
    case Activation::kGeluTanh: {  // x sigmoid(2 u), u the argument of the tanh
      const F cubic = Mul(Mul(x, x), x);
      return Mul(x, Sigmoid(Mul(Set1(1.5957691216f), Fma(cubic, Set1(0.044715f), x))));
    }
    case Activation::kRelu:
      return Max(Set1(0.0f), x);
    case Activation::kTanh:
      return Fma(Sigmoid(Mul(Set1(2.0f), x)), Set1(2.0f), Set1(-1.0f));
    case Activation::kSilu:
      return Mul(x, Sigmoid(x));
  }
  return x;
}

}  // namespace
}  // namespace smp
