/* Affine changes to a batch of images, for the augmentation of `train`.
 *
 * In whole numbers, so that no order of operations and no thread can change a bit: the pixels of OpenCV
 * 4's warpAffine with INTER_LINEAR and BORDER_REPLICATE (modules/imgproc/src/imgwarp.cpp), which
 * OpenCV 5 computes in another way.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "variants.h"

/* In 1/1024 of a pixel; far outside of any image there is only its edge. */
static int32_t fixed(double place) {
    double value = rint(place * 1024.);
    return value < -(1 << 29) ? -(1 << 29) : value > 1 << 29 ? 1 << 29 : (int32_t)value;
}

struct warper {
    uint8_t *rows;          /* [2, width + 2]: one row of the image and the next, their ends repeated */
    uint8_t *pairs;         /* [height + 1, width + 2, 2] */
    int32_t *right, *below; /* [width] */
};

static void take_warper(struct arena *arena, int height, int width, struct warper *out) {
    size_t wide = (size_t)width + 2, columns = ((size_t)width + LANES) * sizeof *out->right;
    out->rows = take(arena, 2 * wide);
    out->pairs = take(arena, ((size_t)height + 1) * wide * 2);
    out->right = take(arena, columns);
    out->below = take(arena, columns);
}

static void copy_row(const uint8_t *row, int width, uint8_t *out) {
    out[0] = row[0];
    memcpy(out + 1, row, (size_t)width);
    out[width + 1] = row[width - 1];
}

/* Repeat the edge once on each side, and put each pixel beside the one below it: then one load of four
 * bytes gives the four pixels that are blended. */
static void repeat_edge(const uint8_t *image, int height, int width, const struct warper *warper) {
    uint8_t *upper = warper->rows, *lower = upper + width + 2, *pairs = warper->pairs;
    copy_row(image, width, lower);
    for (int y = 0; y <= height; y++) {
        memcpy(upper, lower, (size_t)width + 2);
        copy_row(image + (size_t)(y < height ? y : height - 1) * width, width, lower);
        for (int x = 0; x < width + 2; x++, pairs += 2) {
            pairs[0] = upper[x];
            pairs[1] = lower[x];
        }
    }
}

/* images, out: [count, height, width]; maps: [count, 2, 3]: output pixel (x, y) is the image's value at
 * (m00 x + m01 y + m02, m10 x + m11 y + m12), to 1/32 of a pixel. Returns 0, or -1 without memory. */
int warp(int variant, const uint8_t *images, int count, int height, int width, const float *maps,
         uint8_t *out) {
    const struct variant *code = variant_at(variant);
    struct arena arena = {0};
    struct warper warper;
    for (int twice = 0; twice < 2; twice++) {
        arena.used = 0;
        take_warper(&arena, height, width, &warper);
        if (!twice && !(arena.block = calloc(1, arena.used))) return -1;
    }
    for (int n = 0; n < count; n++, maps += 6, images += (size_t)height * width) {
        double m[6];
        for (int i = 0; i < 6; i++) m[i] = maps[i];
        repeat_edge(images, height, width, &warper);
        for (int x = 0; x < width; x++) {
            warper.right[x] = fixed(m[0] * x);
            warper.below[x] = fixed(m[3] * x);
        }
        for (int y = 0; y < height; y++, out += width) {
            int32_t at_x = fixed(m[1] * y + m[2]) + 16, at_y = fixed(m[4] * y + m[5]) + 16;
            code->warp_row(warper.pairs, 2 * (width + 2), height, width, at_x, at_y, warper.right,
                           warper.below, out);
        }
    }
    free(arena.block);
    return 0;
}
