/* Nets side by side: every number is a vector, which has that number of another net in each lane.
 *
 * No row is padded, nothing is packed or transposed: an operand is read by two strides, which count
 * numbers, as everywhere here. A lane meets no other lane: what a net learns does not depend on its
 * neighbours. What a lane has in addition (rates, penalties) is a vector of `rules`.
 *
 * Included by simd.h once, for float32 and wide vectors. */

/* C(i,j) = init(i,j) + sum over k of A(i,k) B(k,j), each one chain of multiply-adds in the order of k.
 * A(i,k) is at a + i a_row + k a_depth, B(k,j) at b + k b_depth + j b_column, C(i,j) at c + i c_row +
 * j LANES, init(i,j) at init + i init_row + j LANES (NULL: zeros); it may be C itself. Tiles of 3 x 4, or
 * 1 x 8, which hide the latency. */
#define LANE_TILE(ROWS, COLUMNS)                                                                \
    case 16 * ROWS + COLUMNS: {                                                                 \
        const REAL *a_k = a, *b_k = b;                                                          \
        VEC sum[ROWS][COLUMNS];                                                                 \
        UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < COLUMNS; j++)          \
            sum[i][j] = init ? NAME(load)(init + i * init_row + j * LANES) : NAME(splat)(0);    \
        for (ptrdiff_t k = 0; k < depth; k++, a_k += a_depth, b_k += b_depth) {                 \
            VEC a_ik[ROWS];                                                                     \
            UNROLL for (int i = 0; i < ROWS; i++) a_ik[i] = NAME(load)(a_k + i * a_row);        \
            UNROLL for (int j = 0; j < COLUMNS; j++) {                                          \
                VEC b_kj = NAME(load)(b_k + j * b_column);                                      \
                UNROLL for (int i = 0; i < ROWS; i++) sum[i][j] += a_ik[i] * b_kj;              \
            }                                                                                   \
        }                                                                                       \
        UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < COLUMNS; j++)          \
            NAME(store)(c + i * c_row + j * LANES, sum[i][j]);                                  \
    } break;

FUNCTION void NAME(lane_tile)(int shape, ptrdiff_t depth, const REAL *a, ptrdiff_t a_row,
                              ptrdiff_t a_depth, const REAL *b, ptrdiff_t b_depth, ptrdiff_t b_column,
                              const REAL *init, ptrdiff_t init_row, REAL *c, ptrdiff_t c_row)
{
    switch (shape) {
        LANE_TILE(1, 1) LANE_TILE(1, 2) LANE_TILE(1, 4) LANE_TILE(1, 8)
        LANE_TILE(2, 1) LANE_TILE(2, 2) LANE_TILE(2, 4)
        LANE_TILE(3, 1) LANE_TILE(3, 2) LANE_TILE(3, 4)
    }
}

FUNCTION void NAME(lane_product)(ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t depth, const REAL *a,
                                 ptrdiff_t a_row, ptrdiff_t a_depth, const REAL *b, ptrdiff_t b_depth,
                                 ptrdiff_t b_column, const REAL *init, ptrdiff_t init_row, REAL *c, ptrdiff_t c_row)
{
    for (ptrdiff_t m; rows > 0; rows -= m, a += m * a_row, c += m * c_row, init += init ? m * init_row : 0) {
        m = rows == 4 ? 2 : rows < 3 ? rows : 3;
        for (ptrdiff_t j = 0, n; j < columns; j += n) {
            ptrdiff_t left = columns - j;
            n = m == 1 && left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
            NAME(lane_tile)((int)(16 * m + n), depth, a, a_row, a_depth, b + j * b_column, b_depth,
                            b_column, init ? init + j * LANES : NULL, init_row, c + j * LANES, c_row);
        }
    }
}

/* to(k) = the number k of a row of each net; the rows begin at from[0], from[1], ... */
FUNCTION void NAME(lane_gather)(const REAL *const *from, ptrdiff_t n, REAL *to)
{
    ptrdiff_t k = 0;
    VEC x[LANES];
    for (; k + LANES <= n; k += LANES) {
        UNROLL for (int l = 0; l < LANES; l++) x[l] = NAME(load)(from[l] + k);
        NAME(transpose)(x);
        UNROLL for (int l = 0; l < LANES; l++) NAME(store)(to + (k + l) * LANES, x[l]);
    }
    for (; k < n; k++)
        UNROLL for (int l = 0; l < LANES; l++) to[k * LANES + l] = from[l][k];
}

/* Replace a row's weighted sums z by z - top, top being the largest, and write their exponentials to `e`.
 * Returns the sum of these less one: the one of the largest z is 1, without it small ones keep digits. */
INLINE VEC NAME(lane_exps)(ptrdiff_t n_out, REAL *z, REAL *e)
{
    const VEC zero = NAME(splat)(0);
    VEC top = NAME(load)(z), small = zero, ones = NAME(splat)(-1);
    for (ptrdiff_t j = 1; j < n_out; j++) top = NAME(larger)(NAME(load)(z + j * LANES), top);
    for (ptrdiff_t j = 0; j < n_out * LANES; j += LANES) {
        VEC shifted = NAME(load)(z + j) - top, power = NAME(v_exp)(shifted);
        IVEC below = VEC_LESS(shifted, zero);
        NAME(store)(z + j, shifted);
        NAME(store)(e + j, power);
        small += NAME(v_select)(below, power, zero);
        ones += NAME(v_select)(below, zero, power); /* or NaN */
    }
    return ones + small;
}

/* Turn the output layer's sums of some rows into its activations; write share (a - y), and each row's cost.
 * `loss`: 0 half the squared error (identity), 1 binary (logistic), 2 categorical (softmax) cross-entropy. */
FUNCTION void NAME(lane_costs)(int loss, ptrdiff_t rows, ptrdiff_t n_out, REAL *z, const REAL *y,
                               const REAL *share, REAL *delta, REAL *cost)
{
    const VEC zero = NAME(splat)(0);
    for (ptrdiff_t i = 0; i < rows; i++, share += LANES, cost += LANES) {
        VEC sum = zero, log_total = zero, inverse = zero;
        if (loss == 2) {
            VEC rest = NAME(lane_exps)(n_out, z, delta);
            log_total = NAME(v_log)(1 + rest, rest), inverse = 1 / (1 + rest);
        }
        for (ptrdiff_t j = 0; j < n_out; j++, z += LANES, y += LANES, delta += LANES) {
            VEC x = NAME(load)(z), t = NAME(load)(y), a = x;
            if (loss == 0) {
                sum += NAME(splat)((REAL)0.5) * (a - t) * (a - t);
            } else if (loss == 1) {
                a = NAME(v_logistic)(x);
                sum += (NAME(v_max)(x, 0) - t * x) + NAME(v_log1p)(NAME(v_exp_minus_abs)(x));
            } else {
                a = NAME(load)(delta) * inverse;
                sum += NAME(v_select)(VEC_LESS(zero, t), t * (log_total - x), zero);
            }
            NAME(store)(z, a);
            NAME(store)(delta, NAME(load)(share) * (a - t));
        }
        NAME(store)(cost, sum);
    }
}

/* Vectors of `rules`, one after the other. */
enum {
    LANE_RATE, LANE_MOMENTUM, LANE_REST_1, LANE_REST_2, LANE_EPSILON, LANE_L1, LANE_L2, LANE_KEEP,
    LANE_RULES
};

/* Move n parameters against their gradients, `factor` times `grads`, as in updates.pxi, with m and v their
 * moments. `rule`: 0 momentum, 1 Nesterov's, 2 Adam. `penalised`: these are weights, of which penalties and
 * decay are. */
INLINE void NAME(lane_move)(int rule, int penalised, ptrdiff_t n, const REAL *factor, const REAL *grads,
                            REAL *params, REAL *m, REAL *v, const REAL *rules)
{
    const VEC zero = NAME(splat)(0), by = NAME(load)(factor);
    VEC rule_of[LANE_RULES];
    UNROLL for (int i = 0; i < LANE_RULES; i++) rule_of[i] = NAME(load)(rules + i * LANES);
    for (ptrdiff_t i = 0; i < n * LANES; i += LANES) {
        VEC g = by * NAME(load)(grads + i), w = NAME(load)(params + i), mean = NAME(load)(m + i);
        if (penalised) {
            VEC l1 = rule_of[LANE_L1];
            g += rule_of[LANE_L2] * w;
            g += NAME(v_select)(VEC_LESS(zero, w), l1, NAME(v_select)(VEC_LESS(w, zero), -l1, zero));
            w *= rule_of[LANE_KEEP];
        }
        if (rule == 2) {
            VEC square = NAME(load)(v + i), root;
            mean += rule_of[LANE_REST_1] * (g - mean);
            square += rule_of[LANE_REST_2] * (g * g - square);
            NAME(store)(v + i, square);
            UNROLL for (int l = 0; l < LANES; l++) ((REAL *)&root)[l] = sqrtf(((REAL *)&square)[l]);
            w -= rule_of[LANE_RATE] * mean / (root + rule_of[LANE_EPSILON]);
        } else {
            VEC step = rule_of[LANE_RATE] * g;
            mean = rule_of[LANE_MOMENTUM] * mean - step;
            w += rule ? rule_of[LANE_MOMENTUM] * mean - step : mean;
        }
        NAME(store)(m + i, mean);
        NAME(store)(params + i, w);
    }
}

FUNCTION void NAME(lane_update)(int rule, int penalised, ptrdiff_t n, const REAL *factor,
                                const REAL *grads, REAL *params, REAL *m, REAL *v, const REAL *rules)
{
#define LANE_MOVE(RULE, PENALISED)                                                                   \
    if (rule == RULE && penalised == PENALISED) {                                                    \
        NAME(lane_move)(RULE, PENALISED, n, factor, grads, params, m, v, rules);                             \
        return;                                                                                      \
    }
    LANE_MOVE(0, 0) LANE_MOVE(0, 1) LANE_MOVE(1, 0) LANE_MOVE(1, 1) LANE_MOVE(2, 0) LANE_MOVE(2, 1)
}

/* sums(l) += the penalty of n weights of each net */
FUNCTION void NAME(lane_penalty)(ptrdiff_t n, const REAL *params, const REAL *rules, double *sums)
{
    REAL lanes[LANES];
    for (ptrdiff_t i = 0; i < n;) {
        ptrdiff_t end = i + 64 < n ? i + 64 : n;
        VEC sum = NAME(splat)(0);
        for (; i < end; i++) {
            VEC w = NAME(load)(params + i * LANES);
            sum += NAME(load)(rules + LANE_L2 * LANES) * (REAL)0.5 * w * w; /* as in size_of */
            sum += NAME(load)(rules + LANE_L1 * LANES) * NAME(v_abs)(w);
        }
        NAME(store)(lanes, sum);
        for (int l = 0; l < LANES; l++) sums[l] += lanes[l];
    }
}
#undef LANE_TILE
#undef LANE_MOVE
