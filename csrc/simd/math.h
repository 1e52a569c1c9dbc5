// exp, expm1, tanh and the logistic function over Vec, within a few units in the last place; NaN goes through.
#pragma once

#include "vec.h"

namespace unrain::UNRAIN_TIER {

// x = n ln 2 + r with |r| <= ln 2 / 2; returns expm1(r), a degree-6 fit (relative error 2.5e-8), and n.
UNRAIN_HD Vec expm1_reduced(Vec x, Vec& n) {
    n = round_even(x * set1(1.44269504F));
    const Vec r = fnma(n, set1(-2.12194440e-4F), fnma(n, set1(0.693359375F), x));
    Vec q = set1(0x1.6d43b4p-10F);
    q = fma(q, r, set1(0x1.120be8p-7F));
    q = fma(q, r, set1(0x1.5554e8p-5F));
    q = fma(q, r, set1(0x1.5554dcp-3F));
    q = fma(q, r, set1(0.5F));
    return fma(r * r, q, r);
}

// The bounds keep 2^n a normal number: beyond them the result stays at 1e-38 or 2e38.
UNRAIN_HD Vec exp(Vec x) {
    Vec n;
    const Vec p = expm1_reduced(min(set1(88.3F), max(set1(-87.3F), x)), n);
    return scale_by_power(p + set1(1.0F), n);
}

// expm1(2 x) and exp(2 x), held where tanh has reached 1: tanh(x) = e / (e + 2) without cancellation near zero.
UNRAIN_HD Vec tanh_numerator(Vec x, Vec& power_of_e) {
    Vec n;
    const Vec p = expm1_reduced(min(set1(19.0F), max(set1(-19.0F), x + x)), n);
    const Vec power = scale_by_power(set1(1.0F), n);
    power_of_e = fma(p, power, power);
    return fma(p, power, power - set1(1.0F));
}

UNRAIN_HD Vec sigmoid(Vec x) { return set1(1.0F) / (set1(1.0F) + exp(zero() - x)); }

// sigmoid(a) * tanh(b) with one division.
UNRAIN_HD Vec sigmoid_times_tanh(Vec a, Vec b) {
    Vec unused;
    const Vec e = tanh_numerator(b, unused);
    return e / ((e + set1(2.0F)) * (set1(1.0F) + exp(zero() - a)));
}

// The functions with their slopes. That of tanh comes from the exponential: 1 - t^2 would double the rounding of t.
UNRAIN_HD Vec sigmoid(Vec x, Vec& slope) {
    const Vec s = sigmoid(x);
    slope = fnma(s, s, s);
    return s;
}

UNRAIN_HD Vec tanh(Vec x, Vec& slope) {
    Vec power;
    const Vec e = tanh_numerator(x, power);
    const Vec below = e + set1(2.0F);
    slope = set1(4.0F) * power / (below * below);
    return e / below;
}

}  // namespace unrain::UNRAIN_TIER
