/* Exponential-like functions, each as an inline function on one VEC and as a loop over an array.
 *
 * Straight-line code: what a scalar program would branch on is a select or a clamp. A clamp keeps NaN
 * (every comparison with it is false), and it stands wherever inf * 0 could arise.
 * Bounds below are the largest errors measured, on three levels, gcc and clang, for every 7th of the 2^32
 * float32 against double and for 2 10^7 random and edge float64 against long double; where two numbers
 * stand, the first is float32's. ulp: of the exact result, over the whole range
 * (silu, mish: while that is not subnormal); eps: 2^-23 or 2^-52.
 *
 * Included by simd.h once per number type and width of vector. */

/* Primitives --------------------------------------------------------------------------------------- */

INLINE VEC NAME(load)(const REAL *p) { return *(const NAME(loose) *)p; }
INLINE void NAME(store)(REAL *p, VEC x) { *(NAME(loose) *)p = x; }
INLINE VEC NAME(splat)(REAL x) { return x - (VEC){0}; }
INLINE IVEC NAME(v_bits)(VEC x) { IVEC i; memcpy(&i, &x, sizeof i); return i; }
INLINE VEC NAME(v_from_bits)(IVEC i) { VEC x; memcpy(&x, &i, sizeof x); return x; }
/* a where the mask is set, b elsewhere */
INLINE VEC NAME(v_select)(IVEC mask, VEC a, VEC b)
{
    return NAME(v_from_bits)((mask & NAME(v_bits)(a)) | (~mask & NAME(v_bits)(b)));
}
INLINE VEC NAME(v_max)(VEC x, REAL a) { return NAME(v_select)(VEC_LESS(x, a), NAME(splat)(a), x); }
INLINE VEC NAME(v_min)(VEC x, REAL a) { return NAME(v_select)(VEC_LESS(a, x), NAME(splat)(a), x); }

#define K(constant) ((REAL)(constant))
#define SIGN_BIT ((INT)((uint64_t)1 << (REAL_BITS - 1)))
INLINE VEC NAME(v_abs)(VEC x) { return NAME(v_from_bits)(NAME(v_bits)(x) & ~SIGN_BIT); }
INLINE VEC NAME(v_minus_abs)(VEC x) { return NAME(v_from_bits)(NAME(v_bits)(x) | SIGN_BIT); }
/* `sign` gives the sign, `x >= 0` the rest */
INLINE VEC NAME(v_with_sign)(VEC x, VEC sign)
{
    return NAME(v_from_bits)(NAME(v_bits)(x) | (NAME(v_bits)(sign) & SIGN_BIT));
}

/* Horner's rule in x^2 over pairs of terms, highest power first: half as long a chain of dependent
 * multiply-adds. The loop is unrolled and the table becomes constants. */
INLINE VEC NAME(v_polynomial)(VEC x, const REAL *table, int n)
{
    VEC xx = x * x, sum = n % 2 ? NAME(splat)(table[0]) : table[0] * x + table[1];
    UNROLL for (int i = 2 - n % 2; i < n; i += 2) sum = sum * xx + (table[i] * x + table[i + 1]);
    return sum;
}
#define POLYNOMIAL(x, table) NAME(v_polynomial)(x, table, (int)(sizeof(table) / sizeof(REAL)))

/* Coefficients: mpmath.chebyfit(f, interval, n) at 60 digits (near-minimax), rounded; the quotients P / Q
 * by Remez's exchange at 50 digits, for the smallest relative error.
 * EXP    f(r) = (expm1(r) - r) / r^2                               |r| <= ln2 / 2
 * LOG1P  f(v) = (2 atanh(s / 2) / s - 1) / v,  s = sqrt(v)         0 <= v <= 4/9
 * PHI    P / Q = erfcx(a / sqrt2) / 2                              0 <= a <= PHI_CUT
 * TANH   P / Q = tanh(x / 2) / x, P and Q in x^2                   0 <= x <= TANH_CUT
 *        with the error weighted by 1 / cosh(x); both times 29/16: numbers just below a power of two
 *        lose least by rounding.
 * LN2_HIGH has so few bits that n LN2_HIGH is exact (Cody and Waite 1980); LN2_LOW is the rest. */
#if REAL_BITS == 32
#define EXP_LOW K(-104)
#define EXP_HIGH K(89)
#define LN2_HIGH K(0.69317626953125)
#define LN2_LOW K(-2.90889713e-05)
#define PHI_CUT K(14.6)
#define MISH_CUT K(20)
#define TANH_CUT K(9.02)
#define TANH_P { \
    0.00010346318, 0.0269784794, 0.90625 }
#define TANH_Q { \
    2.22461071e-06, 0.00218604794, 0.204998538, 1.8125 }
#define EXP_TABLE { \
    0.00139262504, 0.00836323295, 0.0416665524, 0.166665763, 0.5 }
#define LOG1P_TABLE { \
    0.000524443341, 0.00220598583, 0.012502363, 0.0833332986 }
#define PHI_P { \
    0.0041237803, 0.0406834626, 0.183384005, 0.438495652, 0.500000003 }
#define PHI_Q { \
    0.0103366662, 0.101984696, 0.469863675, 1.2031211, 1.67487629, 1 }
#else
#define EXP_LOW K(-746)
#define EXP_HIGH K(710)
#define LN2_HIGH K(0x1.62e42feep-1)
#define LN2_LOW K(1.9082149292705877e-10)
#define PHI_CUT K(38.7)
#define MISH_CUT K(40)
#define TANH_CUT K(19.1)
#define TANH_P { \
    1.647061861613909e-13, 7.3124211587389891e-10, 7.728148443927193e-07, 0.00027484011390941943, \
    0.032645958788163509, 0.90625 }
#define TANH_Q { \
    9.4517548716808158e-16, 1.3766975318334751e-11, 2.7515223216383791e-08, \
    1.6606265795982693e-05, 0.0034733122480695116, 0.21633358424299282, 1.8125 }
#define EXP_TABLE { \
    2.5100472505694996e-08, 2.7620201591031547e-07, 2.7557268276905696e-06, \
    2.4801521057868204e-05, 0.00019841269863171557, 0.0013888888917367081, 0.008333333333330039, \
    0.041666666666623824, 0.16666666666666669, 0.5000000000000001 }
#define LOG1P_TABLE { \
    7.707617574664846e-08, 1.6786076519288395e-07, 9.156091926262446e-07, 4.063154360856609e-06, \
    1.8781213458201444e-05, 8.877826873111747e-05, 0.00043402778744976297, \
    0.0022321428568053718, 0.012500000000004558, 0.08333333333333333 }
#define PHI_P { \
    1.4903684797111122e-06, 3.9583983886653739e-05, 0.00051588243095082435, \
    0.0042642693647256986, 0.024441303442486677, 0.10036492488941201, 0.29523995628747551, \
    0.60227226708063475, 0.78051657777632089, 0.49999999999999994 }
#define PHI_Q { \
    3.7357997708683567e-06, 9.9222333231583718e-05, 0.0012968612877002118, 0.010788160486207487, \
    0.062550916459082076, 0.26206804349608526, 0.79877337758121714, 1.7408614404848779, \
    2.58668856024613, 2.3589177163554926, 1 }
#endif
#define MANTISSA (REAL_BITS == 32 ? 23 : 52)
#define BIAS ((INT)(REAL_BITS == 32 ? 127 : 1023))
#define SMALL K(REAL_BITS == 32 ? 0x1p-63 : 0x1p-511) /* 2^-(BIAS / 2) */

/* exp ---------------------------------------------------------------------------------------------- */

/* Writes x - rest = n ln2 + r, |r| <= ln2 / 2 + |rest|, and returns expm1(r). `shifted` gets n + offset in
 * its low bits: adding 1.5 2^MANTISSA rounds to an integer and leaves it there. */
INLINE VEC NAME(v_reduced_expm1)(VEC x, VEC rest, INT offset, UVEC *shifted)
{
    static const REAL table[] = EXP_TABLE;
    const REAL rounder = K(1.5) * ((INT)1 << MANTISSA) + offset;
    VEC rounded = x * K(1.4426950408889634) + rounder, n = rounded - rounder;
    VEC r = (x - n * LN2_HIGH) - n * LN2_LOW - rest;
    *shifted = (UVEC)NAME(v_bits)(rounded);
    return r + r * r * POLYNOMIAL(r, table);
}

/* The same with 2^n = scale[0] scale[1], because 2^n itself may be subnormal or just too large. For
 * |x| <= 170 (float64: 1400) and NaN. */
INLINE VEC NAME(v_scaled_expm1)(VEC x, VEC scale[2])
{
    UVEC exponents, half;
    VEC q = NAME(v_reduced_expm1)(x, NAME(splat)(0), 2 * BIAS, &exponents);
    half = exponents >> 1;
    scale[0] = NAME(v_from_bits)((IVEC)(half << MANTISSA));
    scale[1] = NAME(v_from_bits)((IVEC)((exponents - half) << MANTISSA));
    return q;
}

/* exp(x - rest) for x <= 0, to where it is zero: one of the two scales can be a constant */
INLINE VEC NAME(v_small_exp)(VEC x, VEC rest)
{
    UVEC exponents;
    VEC q = NAME(v_reduced_expm1)(x, rest, BIAS + BIAS / 2, &exponents);
    VEC scale = NAME(v_from_bits)((IVEC)(exponents << MANTISSA));
    return (K(1) + q) * scale * SMALL;
}

/* exp(x) for |x| <= 170 (float64: 1400) */
INLINE VEC NAME(v_bounded_exp)(VEC x)
{
    VEC scale[2], q = NAME(v_scaled_expm1)(x, scale);
    return (K(1) + q) * scale[0] * scale[1];
}

/* exp(x): 1.1 ulp */
INLINE VEC NAME(v_exp)(VEC x)
{
    return NAME(v_bounded_exp)(NAME(v_min)(NAME(v_max)(x, EXP_LOW), EXP_HIGH));
}

/* exp(x) - 1: 1.9, 2.4 ulp */
INLINE VEC NAME(v_expm1)(VEC x)
{
    VEC scale[2], q = NAME(v_scaled_expm1)(NAME(v_min)(NAME(v_max)(x, EXP_LOW), EXP_HIGH), scale);
    /* 2^n q + (2^n - 1), exact where n = 0, with 1 / scale[1] made by negating the exponent */
    VEC inverse = NAME(v_from_bits)((INT)((INT)(2 * BIAS) << MANTISSA) - NAME(v_bits)(scale[1]));
    return (scale[0] * q + (scale[0] - inverse)) * scale[1];
}

/* exp(-|x|): the one exponential that the functions below share; it cannot overflow. */
INLINE VEC NAME(v_exp_minus_abs)(VEC x)
{
    return NAME(v_small_exp)(NAME(v_max)(NAME(v_minus_abs)(x), EXP_LOW), NAME(splat)(0));
}

/* tanh(x) = 2 u v / (u^2 + v^2) where u / v = tanh(x / 2), u = x P(x^2), v = Q(x^2): of an error of u / v
 * 1 / cosh(x) remains, so P and Q are short. From TANH_CUT on tanh rounds to 1. 3.9 ulp */
INLINE VEC NAME(v_tanh)(VEC x)
{
    static const REAL p[] = TANH_P, q[] = TANH_Q;
    VEC a = NAME(v_abs)(x), aa = a * a, one = NAME(splat)(1);
    VEC u = a * POLYNOMIAL(aa, p), v = POLYNOMIAL(aa, q);
    VEC below = NAME(v_min)((u + u) * v / (u * u + v * v), K(1));
    return NAME(v_with_sign)(NAME(v_select)(VEC_LESS(NAME(splat)(TANH_CUT), a), one, below), x);
}

/* 1 / (1 + exp(-x)) from e = exp(-|x|); e / (1 + e) on the left keeps the relative accuracy: 2.4 ulp */
INLINE VEC NAME(v_logistic_of)(VEC e, VEC x)
{
    return NAME(v_select)(VEC_LESS(x, K(0)), e, NAME(splat)(1)) / (K(1) + e);
}
INLINE VEC NAME(v_logistic)(VEC x) { return NAME(v_logistic_of)(NAME(v_exp_minus_abs)(x), x); }

/* log(1 + x) = 2 atanh(s / 2), s = 2x / (2 + x), for x from 0 to 1 */
INLINE VEC NAME(v_log1p)(VEC x)
{
    static const REAL table[] = LOG1P_TABLE;
    VEC s = (x + x) / (K(2) + x), v = s * s;
    return s + s * v * POLYNOMIAL(v, table);
}

/* log(x) for finite x from 1 on, and NaN; `less_one` is x - 1, with the digits that it has besides x. It is
 * n ln2 + log1p(m - 1) with x = 2^n m, where 2^-n is made from 2^n by negating the exponent. */
INLINE VEC NAME(v_log)(VEC x, VEC less_one)
{
    const REAL rounder = K(1.5) * ((INT)1 << MANTISSA);
    IVEC power = NAME(v_bits)(x) & ~(((INT)1 << MANTISSA) - 1), n = (power >> MANTISSA) - BIAS;
    VEC m = x * NAME(v_from_bits)((INT)((INT)(2 * BIAS) << MANTISSA) - power);
    VEC n_real = NAME(v_from_bits)(NAME(v_bits)(NAME(splat)(rounder)) + n) - rounder;
    VEC rest = NAME(v_select)(VEC_LESS(x, K(2)), less_one, m - 1);
    return n_real * K(0.6931471805599453) + NAME(v_log1p)(rest);
}

/* Activations with a slope: `*slope` gets the derivative; unused, the compiler drops it ------------ */

/* log(1 + exp(x)) = max(x, 0) + log1p(e), e = exp(-|x|): 2.8 ulp; slope 2.5 ulp */
INLINE VEC NAME(v_softplus)(VEC x, VEC *slope)
{
    VEC e = NAME(v_exp_minus_abs)(x);
    *slope = NAME(v_logistic_of)(e, x);
    return NAME(v_max)(x, K(0)) + NAME(v_log1p)(e);
}

/* x Phi(x), and Phi(x) + x phi(x). Phi(-a) = e erfcx(a / sqrt2) / 2 and phi(a) = e / sqrt(2 pi) with
 * e = exp(-a^2 / 2), a = |x|, so one exponential serves both. a^2 is the square of `high`, a without the
 * lower half of its digits, which is exact, and a small rest. Value 6.8, 8.2 ulp, slope 1.6 eps. */
INLINE VEC NAME(v_gelu)(VEC x, VEC *slope)
{
    static const REAL p[] = PHI_P, q[] = PHI_Q;
    VEC a = NAME(v_min)(NAME(v_abs)(x), PHI_CUT);
    VEC high = NAME(v_from_bits)(NAME(v_bits)(a) & -((INT)1 << (MANTISSA / 2 + 1)));
    VEC e = NAME(v_small_exp)(high * high * K(-0.5), (a - high) * (K(0.5) * (a + high)));
    VEC ratio = POLYNOMIAL(a, p) / POLYNOMIAL(a, q), low = e * (ratio - a * K(0.3989422804014327));
    *slope = NAME(v_select)(VEC_LESS(x, K(0)), low, K(1) - low);
    return NAME(v_max)(x, K(0)) - e * (a * ratio);
}

/* x s, and s (1 + x (1 - s)), s = logistic(x): 3.7 ulp; slope 2 eps, and 6 ulp below -2 */
INLINE VEC NAME(v_silu)(VEC x, VEC *slope)
{
    VEC above = NAME(v_max)(x, EXP_LOW), within = NAME(v_min)(above, -EXP_LOW);
    VEC e = NAME(v_small_exp)(NAME(v_minus_abs)(within), NAME(splat)(0));
    VEC large = K(1) / (K(1) + e), small = e * large;
    IVEC negative = VEC_LESS(x, K(0));
    VEC s = NAME(v_select)(negative, small, large), rest = NAME(v_select)(negative, large, small);
    *slope = s * (K(1) + within * rest);
    return above * s;
}

/* x t, t = tanh(softplus(x)) = n / (n + 2), n = e (e + 2), e = exp(x); and t + x s (1 - t^2),
 * s = logistic(x), where s (1 - t^2) = 4 e (1 + e) / (n + 2)^2. From MISH_CUT on t rounds to 1.
 * Value 4.7 ulp, slope 2 eps, and 9 ulp below -2. */
INLINE VEC NAME(v_mish)(VEC x, VEC *slope)
{
    VEC above = NAME(v_max)(x, EXP_LOW), within = NAME(v_min)(above, MISH_CUT);
    VEC e = NAME(v_bounded_exp)(within), n = e * (e + K(2)), d = K(1) / (n + K(2)), t = n * d;
    *slope = t + within * (K(4) * e * d) * (d + e * d);
    return above * t;
}

/* The same over arrays: n is a multiple of LANES, the pointers need no alignment ------------------- */

#define OVER_ARRAY(f)                                                                                 \
    FUNCTION void NAME(f##_n)(REAL *x, ptrdiff_t n)                                                   \
    {                                                                                                 \
        for (ptrdiff_t i = 0; i < n; i += LANES) NAME(store)(x + i, NAME(v_##f)(NAME(load)(x + i)));  \
    }
OVER_ARRAY(exp)
OVER_ARRAY(expm1)
OVER_ARRAY(logistic)
OVER_ARRAY(tanh)

/* slope may be NULL; it never overlaps x */
#define OVER_ARRAY_WITH_SLOPE(f)                                                                      \
    FUNCTION void NAME(f##_n)(REAL *x, REAL *slope, ptrdiff_t n)                                      \
    {                                                                                                 \
        VEC df;                                                                                       \
        if (!slope)                                                                                   \
            for (ptrdiff_t i = 0; i < n; i += LANES)                                                  \
                NAME(store)(x + i, NAME(v_##f)(NAME(load)(x + i), &df));                              \
        else                                                                                          \
            for (ptrdiff_t i = 0; i < n; i += LANES) {                                                \
                NAME(store)(x + i, NAME(v_##f)(NAME(load)(x + i), &df));                              \
                NAME(store)(slope + i, df);                                                           \
            }                                                                                         \
    }
OVER_ARRAY_WITH_SLOPE(softplus)
OVER_ARRAY_WITH_SLOPE(gelu)
OVER_ARRAY_WITH_SLOPE(silu)
OVER_ARRAY_WITH_SLOPE(mish)

/* Sum of l1 |x| + l2 x^2 over n numbers, a multiple of LANES: of eight vectors each lane, the lanes in
 * pairs, and what comes of that in double. */
FUNCTION double NAME(size_of)(const REAL *x, ptrdiff_t n, REAL l1, REAL l2)
{
    double total = 0;
    for (ptrdiff_t i = 0; i < n;) {
        ptrdiff_t end = i + 8 * LANES < n ? i + 8 * LANES : n;
        REAL lanes[LANES];
        VEC sum = NAME(splat)(0);
        for (; i < end; i += LANES) {
            VEC v = NAME(load)(x + i);
            sum += l2 * v * v;
            if (l1 != 0) sum += l1 * NAME(v_abs)(v);
        }
        NAME(store)(lanes, sum);
        UNROLL for (int part = LANES / 2; part > 0; part /= 2)
            UNROLL for (int j = 0; j < part; j++) lanes[j] += lanes[j + part];
        total += lanes[0];
    }
    return total;
}

/* Whether n numbers, times a factor, stay finite: of one that does not, the product is infinite or NaN, and
 * times 0 that is NaN. n is anything. */
FUNCTION int NAME(moderate)(const REAL *x, ptrdiff_t n, REAL factor)
{
    VEC sum[4] = {{0}};
    REAL rest = 0, lanes[LANES];
    ptrdiff_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        UNROLL for (int v = 0; v < 4; v++) sum[v] += NAME(load)(x + i + v * LANES) * factor * 0;
    for (; i + LANES <= n; i += LANES) sum[0] += NAME(load)(x + i) * factor * 0;
    for (; i < n; i++) rest += x[i] * factor * 0;
    NAME(store)(lanes, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (i = 0; i < LANES; i++) rest += lanes[i];
    return rest == 0;
}

#undef K
#undef SIGN_BIT
#undef MANTISSA
#undef BIAS
#undef SMALL
#undef EXP_TABLE
#undef EXP_LOW
#undef EXP_HIGH
#undef LN2_HIGH
#undef LN2_LOW
#undef LOG1P_TABLE
#undef PHI_P
#undef PHI_Q
#undef PHI_CUT
#undef MISH_CUT
#undef TANH_CUT
#undef TANH_P
#undef TANH_Q
#undef POLYNOMIAL
#undef OVER_ARRAY
#undef OVER_ARRAY_WITH_SLOPE
