/* The library on random images, for AddressSanitizer and UBSan: `make test-native` builds and runs it.
 *
 *   fuzz COUNT SEED
 *
 * Every image lies in a block of exactly its size, so that one byte too far is seen. All variants must
 * give the same pixels.
 */

#include <stdio.h>

#include "../../tumorbatch/native/align.c"
#include "../../tumorbatch/native/pixels.c"
#include "../../tumorbatch/native/variants.c"
#include "../../tumorbatch/native/warp.c"

enum { STEPS = 5 };

static uint64_t state;

/* xorshift64*: G. Marsaglia, "Xorshift RNGs", 2003. */
static uint32_t draw(uint32_t below) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545F4914F6CDD1Du) >> 32) % below;
}

/* 1 to 1 << bits, small ones as often as large ones. */
static int draw_side(uint32_t bits) { return 1 + (int)draw(1u << draw(bits + 1)); }

static uint8_t *exact(size_t size) {
    uint8_t *block = malloc(size);
    if (!block) exit(2);
    memset(block, 0xA5, size);
    return block;
}

/* Pictures of noise, flat ones and smooth ones, each aligned with another; every value within its range. */
static int align_some(void) {
    enum { PICTURES = 4 };
    layer *layers = malloc(PICTURES * LAYERS * sizeof *layers);
    int64_t *first = malloc(PICTURES * sizeof *first), *second = malloc(PICTURES * sizeof *second);
    int8_t *orientation = malloc(PICTURES);
    float *out = malloc(PICTURES * sizeof *out);
    int failed = 0;
    if (!layers || !first || !second || !orientation || !out) exit(2);
    for (int n = 0; n < PICTURES; n++) {
        uint32_t kind = draw(3), slope = draw(80);
        first[n] = draw(PICTURES);
        second[n] = draw(PICTURES);
        orientation[n] = (int8_t)draw(8);
        for (int number = 0; number < LAYERS; number++)
            for (int i = 0; i < SIDE * SIDE; i++) {
                int value = kind == 0 ? (int)draw(2041) : kind == 1 ? 2040 : i % SIDE * (int)slope % 2041;
                layers[LAYERS * n + number][i] = (int16_t)(number < 2 ? value : value - 1020);
            }
    }
    similarity(layers, first, second, orientation, PICTURES, 0.8f, out);
    for (int n = 0; n < PICTURES; n++) failed |= !(out[n] >= -1.001f && out[n] <= 1.001f);
    free(layers), free(first), free(second), free(orientation), free(out);
    return failed;
}

int main(int count, char **arguments) {
    long images = count > 1 ? atol(arguments[1]) : 1000;
    state = 0x9E3779B97F4A7C15u ^ (uint64_t)(count > 2 ? atol(arguments[2]) : 0);
    for (long image = 0; image < images; image++) {
        int height = draw_side(10), width = draw_side(10), tiles = draw_side(6);
        double clip = draw(4) ? draw(1000) / 100. + 0.001 : draw(1u << 20) * 1e3;
        int out_height = 1 + (int)draw((uint32_t)height), out_width = 1 + (int)draw((uint32_t)width);
        size_t size = (size_t)height * width, out_size = (size_t)out_height * out_width;
        size_t rows_size = (size_t)out_height * width;
        uint8_t *grey = exact(size), *first[STEPS] = {0};
        float map[6];
        for (int i = 0; i < 6; i++) map[i] = ((float)draw(4001) - 2000.f) * (draw(50) ? 1e-3f : 1e7f);
        uint32_t levels = 1 + draw(256);
        for (size_t i = 0; i < size; i++) grey[i] = (uint8_t)draw(levels);
        for (int variant = 0; variant_name(variant); variant++) {
            uint8_t *all[STEPS] = {exact(size), exact(out_size), exact(out_size), exact(rows_size),
                                   exact(size)};
            size_t sizes[STEPS] = {size, out_size, out_size, rows_size, size};
            int failed = equalize(variant, grey, height, width, clip, tiles, all[0]);
            if (can_shrink(height, width, out_height, out_width)) {
                failed |= equalize_and_shrink(variant, grey, height, width, clip, tiles, all[1], out_height,
                                              out_width);
                failed |= equalize_and_shrink(variant, grey, height, width, 0, 0, all[2], out_height,
                                              out_width);
            }
            if (can_shrink(height, width, out_height, width))
                failed |= shrink_rows(variant, grey, height, width, all[3], out_height);
            failed |= warp(variant, grey, 1, height, width, map, all[4]);
            for (int i = 0; i < STEPS; i++) {
                if (failed || (first[i] && memcmp(first[i], all[i], sizes[i]))) {
                    fprintf(stderr, "image %ld, %d x %d, %s: step %d %s\n", image, height, width,
                            variant_name(variant), i, failed ? "has no memory" : "differs");
                    return 1;
                }
                if (first[i])
                    free(all[i]);
                else
                    first[i] = all[i];
            }
        }
        if (align_some()) {
            fprintf(stderr, "image %ld: a similarity beyond -1 to 1\n", image);
            return 1;
        }
        for (int i = 0; i < STEPS; i++) free(first[i]);
        free(grey);
    }
    printf("%ld images, no fault\n", images);
    return 0;
}
