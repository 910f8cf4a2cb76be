/* Sines and cosines, periodic embeddings, and rows of tables.
 *
 * Included by simd.h once per number type, with wide vectors. */

#define K(constant) ((REAL)(constant))
#define MANTISSA (REAL_BITS == 32 ? 23 : 52)
#define SIGN_BIT ((INT)((uint64_t)1 << (REAL_BITS - 1)))
#define TWO_PI K(6.283185307179586)

/* Coefficients: mpmath.chebyfit(f, interval, n) at 60 digits (near-minimax), rounded; v = r^2, |r| <= pi / 4.
 * SINE    f(v) = (sin(r) / r - 1) / v
 * COSINE  f(v) = (cos(r) - 1 + v / 2) / v^2
 * pi / 2 in three parts, of which the first two have so few bits that n times them is exact up to FAR (Cody
 * and Waite 1980). */
#if REAL_BITS == 32
#define FAR K(12000)
#define HALF_PI_1 K(1.5703125)
#define HALF_PI_2 K(0.0004837512969970703125)
#define HALF_PI_3 K(7.549789954892e-8)
#define SINE { -0.000195853732, 0.00833273656, -0.166666646 }
#define COSINE { 2.45454191e-5, -0.00138882913, 0.0416666646 }
#else
#define FAR K(1.6e6)
#define HALF_PI_1 K(1.5707963267341256142)
#define HALF_PI_2 K(6.0771005063039659766e-11)
#define HALF_PI_3 K(2.0222662487959505e-21)
#define SINE { \
    1.5916726193889337e-10, -2.5051112272573244e-8, 2.7557316008171551e-6, -0.00019841269836575709, \
    0.008333333333330827, -0.16666666666666664 }
#define COSINE { \
    -1.1381754653662937e-11, 2.0876134024090146e-9, -2.755731721268659e-7, 2.4801587298651292e-5, \
    -0.0013888888888887321, 0.041666666666666665 }
#endif

/* sin(u) and cos(u) for |u| <= FAR, and NaN */
INLINE void NAME(v_sincos)(VEC u, VEC *sine, VEC *cosine)
{
    static const REAL sine_table[] = SINE, cosine_table[] = COSINE;
    const int n_terms = (int)(sizeof sine_table / sizeof(REAL));
    const REAL rounder = K(1.5) * ((INT)1 << MANTISSA); /* n stays in the low bits */
    VEC rounded = u * K(0.6366197723675814) + rounder, n = rounded - rounder;
    VEC r = ((u - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3, v = r * r;
    VEC s = r + r * v * NAME(v_polynomial)(v, sine_table, n_terms);
    VEC c = (K(1) - K(0.5) * v) + v * v * NAME(v_polynomial)(v, cosine_table, n_terms);
    UVEC quarter = (UVEC)NAME(v_bits)(rounded);
    IVEC odd = -(IVEC)(quarter & 1);
    IVEC minus_sine = (IVEC)(quarter << (REAL_BITS - 2)) & SIGN_BIT;
    IVEC minus_cosine = (IVEC)((quarter + 1) << (REAL_BITS - 2)) & SIGN_BIT;
    *sine = NAME(v_from_bits)(NAME(v_bits)(NAME(v_select)(odd, c, s)) ^ minus_sine);
    *cosine = NAME(v_from_bits)(NAME(v_bits)(NAME(v_select)(odd, s, c)) ^ minus_cosine);
}

INLINE REAL NAME(v_total)(VEC x)
{
    REAL lanes[LANES];
    NAME(store)(lanes, x);
    UNROLL for (int part = LANES / 2; part > 0; part /= 2)
        UNROLL for (int j = 0; j < part; j++) lanes[j] += lanes[j + part];
    return lanes[0];
}

/* Sines and cosines of u = 2 pi w x + b for the frequencies of one column, from `n` on zeros; `stride` is a
 * multiple of LANES. `block` has the rows w and b. Arguments beyond FAR go to the C library. */
FUNCTION void NAME(waves)(REAL *sines, REAL *cosines, const REAL *block, REAL x, ptrdiff_t n,
                          ptrdiff_t stride)
{
    IVEC far = {0};
    INT lanes[LANES], any = 0;
    const REAL *w = block, *b = block + stride;
    for (ptrdiff_t k = 0; k < stride; k += LANES) {
        VEC s, c, u = TWO_PI * (x * NAME(load)(w + k)) + NAME(load)(b + k);
        far |= VEC_LESS(FAR, NAME(v_abs)(u));
        NAME(v_sincos)(u, &s, &c);
        NAME(store)(sines + k, s);
        NAME(store)(cosines + k, c);
    }
    memcpy(lanes, &far, sizeof far);
    UNROLL for (int j = 0; j < LANES; j++) any |= lanes[j];
    for (ptrdiff_t k = 0; any && k < n; k++) {
        REAL u = TWO_PI * (x * w[k]) + b[k];
        sines[k] = (REAL)sin((double)u);
        cosines[k] = (REAL)cos((double)u);
    }
    for (ptrdiff_t k = n; k < stride; k++) sines[k] = cosines[k] = 0;
}

/* e = V cosines + d; the block's rows are w, b, V (width of them), d */
FUNCTION void NAME(periodic)(REAL *e, const REAL *cosines, const REAL *block, ptrdiff_t stride,
                             ptrdiff_t width)
{
    const REAL *V = block + 2 * stride, *d = V + width * stride;
    for (ptrdiff_t j = 0; j < width; j++, V += stride) {
        VEC sum = NAME(splat)(0);
        for (ptrdiff_t k = 0; k < stride; k += LANES)
            sum += NAME(load)(V + k) * NAME(load)(cosines + k);
        e[j] = d[j] + NAME(v_total)(sum);
    }
}

/* du = -sin(u) (V^T de) for some frequencies */
INLINE VEC NAME(v_argument_slope)(const REAL *V, const REAL *sines, const REAL *de, ptrdiff_t stride,
                                  ptrdiff_t width)
{
    VEC sum = NAME(splat)(0);
    for (ptrdiff_t j = 0; j < width; j++) sum += de[j] * NAME(load)(V + j * stride);
    return -NAME(load)(sines) * sum;
}

/* Adds the gradients by w, b, V and d of one row to `grads`, a block, from those by e. */
FUNCTION void NAME(add_periodic)(REAL *grads, const REAL *block, const REAL *sines,
                                 const REAL *cosines, const REAL *de, REAL x, ptrdiff_t stride,
                                 ptrdiff_t width)
{
    const REAL *V = block + 2 * stride;
    REAL *dw = grads, *db = dw + stride, *dV = db + stride, *dd = dV + width * stride;
    for (ptrdiff_t k = 0; k < stride; k += LANES) {
        VEC du = NAME(v_argument_slope)(V + k, sines + k, de, stride, width);
        VEC c = NAME(load)(cosines + k);
        NAME(store)(dw + k, NAME(load)(dw + k) + TWO_PI * x * du);
        NAME(store)(db + k, NAME(load)(db + k) + du);
        for (ptrdiff_t j = 0; j < width; j++)
            NAME(store)(dV + j * stride + k, NAME(load)(dV + j * stride + k) + de[j] * c);
    }
    for (ptrdiff_t j = 0; j < width; j++) dd[j] += de[j];
}

/* The derivative by x, from those by e */
FUNCTION REAL NAME(periodic_slope)(const REAL *block, const REAL *sines, const REAL *de,
                                   ptrdiff_t stride, ptrdiff_t width)
{
    VEC sum = NAME(splat)(0);
    for (ptrdiff_t k = 0; k < stride; k += LANES)
        sum += NAME(load)(block + k)
               * NAME(v_argument_slope)(block + 2 * stride + k, sines + k, de, stride, width);
    return TWO_PI * NAME(v_total)(sum);
}

/* to += factor row */
FUNCTION void NAME(add_row)(REAL *to, const REAL *row, REAL factor, ptrdiff_t n)
{
    ptrdiff_t j = 0;
    for (; j + LANES <= n; j += LANES)
        NAME(store)(to + j, NAME(load)(to + j) + factor * NAME(load)(row + j));
    for (; j < n; j++) to[j] += factor * row[j];
}

/* to += (1 - f) row + f next */
FUNCTION void NAME(add_between)(REAL *to, const REAL *row, const REAL *next, REAL f, ptrdiff_t n)
{
    ptrdiff_t j = 0;
    REAL rest = 1 - f;
    for (; j + LANES <= n; j += LANES)
        NAME(store)(to + j, NAME(load)(to + j)
                            + (rest * NAME(load)(row + j) + f * NAME(load)(next + j)));
    for (; j < n; j++) to[j] += rest * row[j] + f * next[j];
}

#undef K
#undef MANTISSA
#undef SIGN_BIT
#undef TWO_PI
#undef FAR
#undef HALF_PI_1
#undef HALF_PI_2
#undef HALF_PI_3
#undef SINE
#undef COSINE
