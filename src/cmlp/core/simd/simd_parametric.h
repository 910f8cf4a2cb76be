/* Parametric activations: a = z + alpha (f(z) - z); n is a multiple of LANES.
 *
 * Included by simd.h once per number type, with wide vectors. */

/* a, which holds z, from f(z) */
FUNCTION void NAME(bend)(REAL *a, const REAL *f, const REAL *alpha, ptrdiff_t n)
{
    for (ptrdiff_t k = 0; k < n; k += LANES) {
        VEC z = NAME(load)(a + k);
        NAME(store)(a + k, z + NAME(load)(alpha + k) * (NAME(load)(f + k) - z));
    }
}

/* The same, with da/dz from df/dz, and da/dalpha */
FUNCTION void NAME(bend_with_slopes)(REAL *a, REAL *slope, REAL *by_alpha, const REAL *f, const REAL *df,
                                     const REAL *alpha, ptrdiff_t n)
{
    for (ptrdiff_t k = 0; k < n; k += LANES) {
        VEC z = NAME(load)(a + k), share = NAME(load)(alpha + k), by = NAME(load)(f + k) - z;
        NAME(store)(by_alpha + k, by);
        NAME(store)(a + k, z + share * by);
        NAME(store)(slope + k, 1 + share * (NAME(load)(df + k) - 1));
    }
}

/* Adds a row's dC/dalpha; and dC/dz in the place of dC/da */
FUNCTION void NAME(add_bent)(REAL *dalpha, REAL *delta, const REAL *slope, const REAL *by_alpha,
                             ptrdiff_t n)
{
    for (ptrdiff_t k = 0; k < n; k += LANES) {
        VEC da = NAME(load)(delta + k);
        NAME(store)(dalpha + k, NAME(load)(dalpha + k) + da * NAME(load)(by_alpha + k));
        NAME(store)(delta + k, da * NAME(load)(slope + k));
    }
}
