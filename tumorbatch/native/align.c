/* Align pictures with each other, for the search of copies: ../copy_alignment.py, bit for bit.
 *
 * All sums are of whole numbers that int32 or double hold exactly, so that no order of additions
 * matters; everything else is one float32 or float64 operation after another, as NumPy does them.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "variants.h"

/* What stands in copy_alignment.py too. */
enum { SIDE = 24, MARGIN = 2, INNER = SIDE - 2 * MARGIN, PIXELS = INNER * INNER, LAYERS = 3 };
enum { VALUE, CONSTANT, ACROSS_X, ACROSS_Y, ACROSS, DOWN_X, DOWN_Y, DOWN, TERMS, TARGET_TERM = TERMS };
static const struct {
    int layer, steps;
    float least; /* similarity below which the alignment ends */
} plan[] = {{0, 3, 0.45f}, {0, 5, 0.6f}, {1, 3, 1}};
static const double largest_step = 0.12, largest = 0.3, least_gain = 0.2;
static const float open_from = 0.7f, half = (SIDE - 1) / 2.f, edge = 1.4375f;

typedef int16_t layer[SIDE * SIDE];
typedef float four __attribute__((vector_size(16)));

/* Where an inner pixel lies in the other picture. */
struct place {
    int index; /* of the pixel above and to the left; -1: outside of the margin */
    float right, below;
};

/* x + ROUND - ROUND is x rounded to a whole number, halves to even, for |x| < 2^22. */
static inline float whole(float x) { return x + 12582912.f - 12582912.f; }

/* Places of the inner pixels of a row or a column, -1 to 1 from edge to edge. */
#define PLACE(pixel) ((float)(2 * (pixel) - SIDE + 1) / (float)(SIDE - 1))
#define FIVE(at) PLACE(at), PLACE(at + 1), PLACE(at + 2), PLACE(at + 3), PLACE(at + 4)
static const float grid[INNER] = {FIVE(2), FIVE(7), FIVE(12), FIVE(17)};

static void find_places(const float *affine, struct place *places) {
    for (int row = 0; row < INNER; row++) {
        float across_y = affine[1] * grid[row], down_y = affine[4] * grid[row];
        for (int column = 0; column < INNER; column++, places++) {
            float across = half + half * ((affine[0] * grid[column] + across_y) + affine[2]);
            float down = half + half * ((affine[3] * grid[column] + down_y) + affine[5]);
            int inside = (fabsf(across - half) <= half - edge) & (fabsf(down - half) <= half - edge);
            int left = (int)across, top = (int)down;
            places->index = inside ? top * SIDE + left : -1;
            places->right = across - (float)left;
            places->below = down - (float)top;
        }
    }
}

/* A layer with its slopes, times 16: value, across, down. Those of the outermost pixels are not used. */
static void differentiate(const int16_t *moving, four *pixels) {
    for (int n = 0; n < SIDE * SIDE; n++) {
        int x = n % SIDE, y = n / SIDE, within = x > 0 && x < SIDE - 1, between = y > 0 && y < SIDE - 1;
        float across = within ? (float)(moving[n + 1] - moving[n - 1]) : 0;
        float down = between ? (float)(moving[n + SIDE] - moving[n - SIDE]) : 0;
        pixels[n] = (four){(float)moving[n], across, down, 0};
    }
}

/* Solve by Gauss' elimination: rows [8][9], the last column is the right side and then the result. */
static void solve(double rows[TERMS][TERMS + 1]) {
    for (int k = 0; k < TERMS; k++)
        for (int row = k + 1; row < TERMS; row++) {
            double factor = rows[row][k] / rows[k][k];
            for (int column = k + 1; column <= TERMS; column++)
                rows[row][column] -= factor * rows[k][column];
        }
    for (int k = TERMS - 1; k >= 0; k--) {
        for (int column = k + 1; column < TERMS; column++)
            rows[k][TERMS] -= rows[k][column] * rows[column][TERMS];
        rows[k][TERMS] /= rows[k][k];
    }
}

static inline double limited(double x, double low, double high) {
    return x < low ? low : x > high ? high : x;
}

/* One Gauss-Newton step; target is the last row of terms. */
static void step(const four *pixels, int16_t terms[TERMS + 1][PIXELS], float *affine) {
    struct place places[PIXELS];
    float sampled[3][PIXELS];
    find_places(affine, places);
    for (int n = 0; n < PIXELS; n++) {
        const struct place *place = &places[n];
        four value = {0};
        if (place->index >= 0) {
            const four *at = pixels + place->index;
            four right = {place->right, place->right, place->right, place->right};
            four below = {place->below, place->below, place->below, place->below};
            four upper = at[0] + right * (at[1] - at[0]);
            four lower = at[SIDE] + right * (at[SIDE + 1] - at[SIDE]);
            value = upper + below * (lower - upper);
        }
        terms[CONSTANT][n] = place->index >= 0 ? 1024 : 0;
        for (int k = 0; k < 3; k++) sampled[k][n] = whole(value[k]);
    }
    for (int row = 0, n = 0; row < INNER; row++)
        for (int column = 0; column < INNER; column++, n++) {
            float x = grid[column], y = grid[row], across = sampled[1][n], down = sampled[2][n];
            terms[VALUE][n] = (int16_t)sampled[0][n];
            terms[ACROSS_X][n] = (int16_t)whole(across * x);
            terms[ACROSS_Y][n] = (int16_t)whole(across * y);
            terms[ACROSS][n] = (int16_t)across;
            terms[DOWN_X][n] = (int16_t)whole(down * x);
            terms[DOWN_Y][n] = (int16_t)whole(down * y);
            terms[DOWN][n] = (int16_t)down;
        }
    double rows[TERMS][TERMS + 1];
    for (int row = 0; row < TERMS; row++)
        for (int column = row; column <= TERMS; column++) {
            int32_t sum = 0; /* of 400 products of at most 2040 * 2040 */
            for (int n = 0; n < PIXELS; n++) sum += terms[row][n] * terms[column][n];
            rows[row][column] = sum;
            if (column < TERMS) rows[column][row] = sum;
        }
    for (int k = 0; k < TERMS; k++) rows[k][k] = rows[k][k] * (k < ACROSS_X ? 1 : 1.001) + 1;
    solve(rows);
    double gain = rows[VALUE][TERMS] < least_gain ? least_gain : rows[VALUE][TERMS];
    for (int k = 0; k < 6; k++) {
        double change = rows[k + 2][TERMS] * (4. / (SIDE - 1)) / gain, upright = k == 0 || k == 4;
        change = limited(change, -largest_step, largest_step);
        affine[k] = (float)limited(affine[k] + change, upright - largest, upright + largest);
    }
}

static void cubic_weights(float part, float *weights) {
    const float a = -0.75f;
    float rest = 1 - part, far = part + 1;
    weights[0] = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a;
    weights[1] = ((a + 2) * part - (a + 3)) * part * part + 1;
    weights[2] = ((a + 2) * rest - (a + 3)) * rest * rest + 1;
    weights[3] = 1 - weights[0] - weights[1] - weights[2];
}

/* The correlation of two structures where both pictures are. */
static float correlate(const int16_t *fixed, const int16_t *moving, const float *affine) {
    struct place places[PIXELS];
    int64_t count = 0, s1 = 0, s2 = 0, s11 = 0, s22 = 0, s12 = 0;
    find_places(affine, places);
    for (int n = 0; n < PIXELS; n++) {
        if (places[n].index < 0) continue;
        const int16_t *at = moving + places[n].index - SIDE - 1;
        float across[4], down[4], rows[4];
        cubic_weights(places[n].right, across);
        cubic_weights(places[n].below, down);
        for (int row = 0; row < 4; row++, at += SIDE)
            rows[row] = across[0] * at[0] + across[1] * at[1] + across[2] * at[2] + across[3] * at[3];
        float value = down[0] * rows[0] + down[1] * rows[1] + down[2] * rows[2] + down[3] * rows[3];
        int32_t other = (int32_t)whole(value), one = fixed[(n / INNER + MARGIN) * SIDE + n % INNER + MARGIN];
        count++;
        s1 += one;
        s2 += other;
        s11 += one * one;
        s22 += other * other;
        s12 += one * other;
    }
    double n = (double)count, sum = (double)s1, other = (double)s2;
    double spread = sqrt((n * (double)s11 - sum * sum) * (n * (double)s22 - other * other));
    return (float)((n * (double)s12 - sum * other) / (spread < 1 ? 1 : spread));
}

/* The similarity of one picture with another, resampled to fit it. */
static float fit(const layer *fixed, const layer *moving) {
    float affine[6] = {1, 0, 0, 0, 1, 0}, similarity = 0;
    int16_t terms[TERMS + 1][PIXELS];
    four pixels[SIDE * SIDE];
    for (int stage = 0; stage < (int)(sizeof plan / sizeof *plan); stage++) {
        int number = plan[stage].layer;
        if (!stage || number != plan[stage - 1].layer) {
            for (int n = 0; n < PIXELS; n++)
                terms[TARGET_TERM][n] = fixed[number][(n / INNER + MARGIN) * SIDE + n % INNER + MARGIN];
            differentiate(moving[number], pixels);
        }
        for (int k = 0; k < plan[stage].steps; k++) step(pixels, terms, affine);
        similarity = correlate(fixed[2], moving[2], affine);
        if (similarity < plan[stage].least) break;
    }
    return similarity;
}

/* Orientation: see ../orientation.py. */
static void orient(const layer *picture, int orientation, layer *out) {
    for (int number = 0; number < LAYERS; number++)
        for (int y = 0, n = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++, n++) {
                int down = orientation & 2 ? SIDE - 1 - y : y, across = orientation & 1 ? SIDE - 1 - x : x;
                out[number][n] = picture[number][orientation & 4 ? across * SIDE + down : down * SIDE + across];
            }
}

/* layers: [picture, layer, 24, 24]; first, second: [count] indices of pictures; orientation: [count] of
 * the first; same: similarity from which the other direction is not tried; out: [count]. */
void similarity(const layer *layers, const int64_t *first, const int64_t *second,
                const int8_t *orientation, int count, float same, float *out) {
    layer turned[LAYERS];
    for (int n = 0; n < count; n++) {
        const layer *other = layers + LAYERS * second[n];
        orient(layers + LAYERS * first[n], orientation[n], turned);
        out[n] = fit(turned, other);
        if (out[n] >= open_from && out[n] < same) {
            float back = fit(other, turned);
            if (back > out[n]) out[n] = back;
        }
    }
}
