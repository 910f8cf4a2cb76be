/* Updates: some rows of n parameters w move against their gradient, whose row i is row i of g times
 * factors[i] (NULL: 1) and a scale.
 *
 * Behind a tile, g holds the tile's sums. After a single row of activations a and deltas d, whose gradient
 * is a[i] d[j], `factors` is a, and every row of g is d (g_row = 0): that gradient is never written.
 * `row` is the distance of the rows of w and of its moments; n is a multiple of LANES.
 *
 * Included by _simd.h once per number type and width of vector. */

/* `s` is the factor of this vector of g, which moves these parameters. */
#define FOR_EACH_VECTOR(...)                                                                    \
    for (ptrdiff_t i = 0; i < rows; i++) {                                                      \
        const REAL s = factors ? scale * factors[i] : scale;                                    \
        for (ptrdiff_t j = 0; j < n; j += LANES) {                                              \
            const ptrdiff_t k = i * row + j;                                                    \
            VEC d = s * NAME(load)(g + i * g_row + j);                                          \
            __VA_ARGS__                                                                         \
        }                                                                                       \
    }                                                                                           \
    break;
#define MOVE(change) NAME(store)(w + k, NAME(load)(w + k) + (change))

FUNCTION void NAME(update)(const rule_t *rule, ptrdiff_t rows, ptrdiff_t n, const REAL *factors,
                           const REAL *g, ptrdiff_t g_row, ptrdiff_t row, REAL *w, REAL *moment,
                           REAL *second)
{
    const REAL eta = (REAL)rule->rate, epsilon = (REAL)rule->epsilon, mu = (REAL)rule->momentum;
    const REAL rest_1 = (REAL)(1 - rule->beta_1), rest_2 = (REAL)(1 - rule->beta_2);
    const REAL scale = (REAL)(rule->kind <= RULE_NESTEROV ? rule->rate * rule->scale : rule->scale);
    VEC m, v;
    switch (rule->kind) {
    case RULE_PLAIN:
        FOR_EACH_VECTOR(MOVE(-d);)
    case RULE_MOMENTUM: /* v = mu v - eta g; w += v */
        FOR_EACH_VECTOR(
            v = mu * NAME(load)(moment + k) - d;
            NAME(store)(moment + k, v);
            MOVE(v);)
    case RULE_NESTEROV: /* the same with mu v - eta g of the new v */
        FOR_EACH_VECTOR(
            v = mu * NAME(load)(moment + k) - d;
            NAME(store)(moment + k, v);
            MOVE(mu * v - d);)
    case RULE_ADAM: /* Kingma & Ba 2015, in their efficient form: the bias correction is in the rate */
        FOR_EACH_VECTOR(
            m = NAME(load)(moment + k);
            v = NAME(load)(second + k);
            m += rest_1 * (d - m);
            v += rest_2 * (d * d - v);
            NAME(store)(moment + k, m);
            NAME(store)(second + k, v);
            MOVE(-eta * m / (NAME(v_root)(v) + epsilon));)
    case RULE_RMSPROP:
        FOR_EACH_VECTOR(
            v = NAME(load)(moment + k);
            v += rest_2 * (d * d - v);
            NAME(store)(moment + k, v);
            MOVE(-eta * d / (NAME(v_root)(v) + epsilon));)
    }
}
#undef FOR_EACH_VECTOR
#undef MOVE
