/* What the files of the library share: the inner loops of each instruction set, and memory. */

#ifndef TUMORBATCH_VARIANTS_H
#define TUMORBATCH_VARIANTS_H

#include <stddef.h>
#include <stdint.h>

/* Grey values; rows that are equalised at once. */
enum { BINS = 256, LANES = 8 };

/* Where the pixels of one axis lie among the tiles, one entry a pixel. */
struct tiles {
    int32_t *quad; /* offset of the tables of the two nearest tiles */
    float *share;  /* of the second of them, 0 to 1 */
    float *rest;   /* 1 - share */
};

/* Which source pixels make up each pixel of one axis of the smaller image. */
struct spans {
    int length;     /* pixels of the smaller image */
    int *end;       /* [length]: entries up to and with each of them */
    int *source;    /* [entries]: a source pixel */
    float *weight;  /* [entries]: its share; those of one span sum to 1 */
};

/* The functions of kernels.h, compiled for one instruction set. */
struct variant {
    void (*tile_table)(uint32_t[4][BINS], int32_t, int32_t, uint8_t *);
    void (*interleave)(const uint8_t *const[4], uint32_t *);
    void (*transpose)(const uint8_t *const[LANES], int, uint8_t *);
    void (*strip_equalized)(const uint8_t *, const uint32_t *, const struct tiles *, const struct tiles *,
                            int, const struct spans *, float *);
    void (*strip_plain)(const uint8_t *, const struct spans *, float *);
    void (*equalize_row)(const uint8_t *, const uint32_t *, const struct tiles *, float, float, int,
                         uint8_t *);
    void (*add_row)(const float *, int, float, int, float *);
    void (*add_pixels)(const uint8_t *, float, int, float *);
    void (*store_row)(const float *, int, uint8_t *);
    void (*warp_row)(const uint8_t *, int, int, int, int32_t, int32_t, const int32_t *, const int32_t *,
                     uint8_t *);
};

/* The variant with the name variant_name(index). */
const struct variant *variant_at(int index);

/* Memory for one call, taken piece by piece from one block. */
struct arena {
    char *block;
    size_t used;
};

static inline void *take(struct arena *arena, size_t bytes) {
    void *piece = arena->block ? arena->block + arena->used : NULL;
    arena->used += (bytes + 63) / 64 * 64;
    return piece;
}

#endif
