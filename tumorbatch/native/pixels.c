/* The pixel path in C: contrast-limited adaptive histogram equalisation and the area resize.
 *
 * Bit for bit the pixels of OpenCV's CLAHE and INTER_AREA (modules/imgproc/src/clahe.cpp and
 * resize.cpp), in a third of the time: the image is equalised 8 rows at a time and averaged at once,
 * without an equalised image of full size in between. The same bits need the same float32 operations
 * in the same order, so this file is compiled with -ffp-contract=off: no multiplication and addition
 * is fused into one operation with one rounding.
 *
 * All images are uint8 [height, width], rows without gaps. Functions return 0, or -1 without memory.
 */

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "float32 operations must be rounded to float32"
#endif

enum { BINS = 256, LANES = 8 };

/* x + ROUND - ROUND is x rounded to a whole number, halves to even, for 0 <= x < 2^22: of the sum's
 * 24 bits none is left for a fraction. Unlike rint it needs no function call on any processor. */
#define ROUND 12582912.0f /* 3 * 2^22 */

static inline int32_t to_integer(float x) { return (int32_t)(x + ROUND - ROUND); }

/* memcpy, of which the compiler knows that it is nearly always of `most` bytes. */
static inline void copy_up_to(void *to, const void *from, size_t count, size_t most) {
    if (count == most)
        memcpy(to, from, most);
    else
        memcpy(to, from, count);
}

/* Exchange the bits of *low that are above `shift` with those of *high that lie under `mask`. */
static inline void exchange(uint64_t *low, uint64_t *high, int shift, uint64_t mask) {
    uint64_t changed = ((*low >> shift) ^ *high) & mask;
    *high ^= changed;
    *low ^= changed << shift;
}

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
};

#define FOUR(table, at) {(table)[at[0]], (table)[at[1]], (table)[at[2]], (table)[at[3]]}

#define WIDTH 4
#define GATHER(table, at) ((portable_ints)FOUR(table, at))
#define TARGET
#define NAME(x) portable_##x
#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define WIDTH 4
#define GATHER(table, at) ((sse4_ints)FOUR(table, at))
#define TARGET __attribute__((target("sse4.1")))
#define NAME(x) sse4_##x
#include "kernels.h"
#define WIDTH 8
#define GATHER(table, at) ((avx2_ints)_mm256_i32gather_epi32(table, (__m256i)at, 4))
#define TARGET __attribute__((target("avx2")))
#define NAME(x) avx2_##x
#include "kernels.h"
#endif

/* From the slowest to the fastest. */
static const struct {
    const char *name;
    const struct variant *code;
} variants[] = {
    {"portable", &portable_variant},
#if defined(__x86_64__) && defined(__GNUC__)
    {"sse4", &sse4_variant},
    {"avx2", &avx2_variant},
#endif
};

/* The name of a variant that this processor can run; NULL behind the last one. */
const char *variant_name(int index) {
    if (index < 0 || index >= (int)(sizeof variants / sizeof *variants)) return NULL;
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (index == 1 && !__builtin_cpu_supports("sse4.1")) return NULL;
    if (index == 2 && !__builtin_cpu_supports("avx2")) return NULL;
#endif
    return variants[index].name;
}

/* Memory for one call, taken piece by piece from one block. */
struct arena {
    char *block;
    size_t used;
};

static void *take(struct arena *arena, size_t bytes) {
    void *piece = arena->block ? arena->block + arena->used : NULL;
    arena->used += (bytes + 63) / 64 * 64;
    return piece;
}

/* --- area resize ------------------------------------------------------------------------------- */

static void take_spans(struct arena *arena, int source, int target, struct spans *spans) {
    size_t entries = (size_t)source + 2 * (size_t)target;
    spans->end = take(arena, (size_t)target * sizeof *spans->end);
    spans->source = take(arena, entries * sizeof *spans->source);
    spans->weight = take(arena, entries * sizeof *spans->weight);
}

/* Pixel x of the smaller image is the mean over [x * scale, (x + 1) * scale) of the larger one; source
 * pixels at the ends count in part, and not at all below a thousandth. */
static void find_spans(int source, int target, struct spans *spans) {
    double scale = 1. / ((double)target / source);
    int k = 0;
    spans->length = target;
    for (int x = 0; x < target; x++) {
        double start = x * scale, stop = start + scale;
        double width = scale < source - start ? scale : source - start;
        int first = (int)ceil(start), last = (int)floor(stop);
        last = last < source - 1 ? last : source - 1;
        first = first < last ? first : last;
        if (first - start > 1e-3) {
            spans->source[k] = first - 1;
            spans->weight[k++] = (float)((first - start) / width);
        }
        for (int pixel = first; pixel < last; pixel++) {
            spans->source[k] = pixel;
            spans->weight[k++] = (float)(1. / width);
        }
        if (stop - last > 1e-3) {
            double part = stop - last < 1. ? stop - last : 1.;
            spans->source[k] = last;
            spans->weight[k++] = (float)((part < width ? part : width) / width);
        }
        spans->end[x] = k;
    }
}

/* Whether INTER_AREA takes this way: it enlarges otherwise, and has another one where both ratios are
 * whole numbers. */
static int is_whole(double ratio) { return fabs(ratio - rint(ratio)) < DBL_EPSILON; }

int can_shrink(int height, int width, int out_height, int out_width) {
    if (out_height < 1 || out_width < 1 || height < out_height || width < out_width) return 0;
    double down = 1. / ((double)out_height / height), across = 1. / ((double)out_width / width);
    return !(is_whole(down) && is_whole(across));
}

/* --- CLAHE ------------------------------------------------------------------------------------- */

/* The image is extended to whole tiles, on both axes where either needs it. */
struct grid {
    int tiles;       /* along each axis */
    int tall, wide;  /* of a tile, in pixels */
    int32_t limit;   /* of a bin */
};

static struct grid make_grid(int height, int width, double clip, int tiles) {
    struct grid grid = {.tiles = tiles};
    int extend = height % tiles || width % tiles;
    grid.tall = (height + (extend ? tiles - height % tiles : 0)) / tiles;
    grid.wide = (width + (extend ? tiles - width % tiles : 0)) / tiles;
    double limit = clip * grid.tall * grid.wide / BINS;
    grid.limit = limit < 1 ? 1 : limit < INT32_MAX ? (int32_t)limit : INT32_MAX;
    return grid;
}

/* Index of a pixel in the image extended by its mirror image: ... 2 1 0 1 2 ... n-2 n-1 n-2 ... */
static int mirrored(int index, int length) {
    if (length == 1) return 0;
    index %= 2 * (length - 1);
    return index < length ? index : 2 * (length - 1) - index;
}

static void make_tables(const struct variant *code, const uint8_t *image, int height, int width,
                        const struct grid *grid, const int *mirror, uint8_t *tables) {
    for (int row = 0; row < grid->tiles; row++)
        for (int column = 0; column < grid->tiles; column++, tables += BINS) {
            /* Four counters a grey value: equal neighbours do not wait for each other. */
            uint32_t counts[4][BINS] = {{0}};
            int left = column * grid->wide;
            int inside = left >= width ? 0 : width - left < grid->wide ? width - left : grid->wide;
            for (int y = row * grid->tall; y < (row + 1) * grid->tall; y++) {
                const uint8_t *line = image + (size_t)mirrored(y, height) * width;
                const uint8_t *pixels = line + left;
                int x = 0;
                for (; x + 4 <= inside; x += 4)
                    for (int i = 0; i < 4; i++) counts[i][pixels[x + i]]++;
                for (; x < inside; x++) counts[0][pixels[x]]++;
                for (; x < grid->wide; x++) counts[1][line[mirror[left + x - width]]]++;
            }
            code->tile_table(counts, grid->tall * grid->wide, grid->limit, tables);
        }
}

/* quads: [tiles + 1, tiles + 1, BINS]; entry (r, c) belongs to the pixels between the centres of tiles
 * r - 1 and r, c - 1 and c; beyond the outermost centres both are the same tile. */
static void make_quads(const struct variant *code, const uint8_t *tables, int tiles, uint32_t *quads) {
    for (int row = 0; row <= tiles; row++)
        for (int column = 0; column <= tiles; column++, quads += BINS) {
            int above = row ? row - 1 : 0, below = row < tiles ? row : tiles - 1;
            int left = column ? column - 1 : 0, right = column < tiles ? column : tiles - 1;
            const uint8_t *four[4] = {
                tables + (size_t)(above * tiles + left) * BINS,
                tables + (size_t)(above * tiles + right) * BINS,
                tables + (size_t)(below * tiles + left) * BINS,
                tables + (size_t)(below * tiles + right) * BINS,
            };
            code->interleave(four, quads);
        }
}

static void take_tiles(struct arena *arena, int length, struct tiles *tiles) {
    size_t entries = (size_t)length + LANES; /* the last strip reads behind the end */
    tiles->quad = take(arena, entries * sizeof *tiles->quad);
    tiles->share = take(arena, entries * sizeof *tiles->share);
    tiles->rest = take(arena, entries * sizeof *tiles->rest);
}

/* In units of tiles, pixel i lies at i / tile - 0.5 of the first tile's centre. */
static void place_tiles(int length, int tile, int tiles, int32_t stride, struct tiles *out) {
    float per_pixel = 1.0f / (float)tile;
    for (int i = 0; i < length + LANES; i++) {
        float at = (float)(i < length ? i : length - 1) * per_pixel - 0.5f;
        int before = (int)floorf(at);
        out->share[i] = at - (float)before;
        out->rest[i] = 1.0f - out->share[i];
        int quad = before + 1 < 0 ? 0 : before + 1 > tiles ? tiles : before + 1;
        out->quad[i] = quad * stride;
    }
}

/* Everything that the inner loops need of one image. */
struct equalizer {
    int *mirror;
    uint8_t *tables;
    uint32_t *quads;
    struct tiles across, down;
};

static void take_equalizer(struct arena *arena, int height, int width, int tiles, struct equalizer *out) {
    out->mirror = take(arena, ((size_t)tiles + 1) * sizeof *out->mirror);
    out->tables = take(arena, (size_t)tiles * tiles * BINS);
    out->quads = take(arena, ((size_t)tiles + 1) * (tiles + 1) * BINS * sizeof *out->quads);
    take_tiles(arena, width, &out->across);
    take_tiles(arena, height, &out->down);
}

static void prepare(const struct variant *code, const uint8_t *image, int height, int width, double clip,
                    int tiles, struct equalizer *out) {
    struct grid grid = make_grid(height, width, clip, tiles);
    for (int i = 0; i <= tiles; i++) out->mirror[i] = mirrored(width + i, width);
    make_tables(code, image, height, width, &grid, out->mirror, out->tables);
    make_quads(code, out->tables, tiles, out->quads);
    place_tiles(width, grid.wide, tiles, BINS, &out->across);
    place_tiles(height, grid.tall, tiles, BINS * (tiles + 1), &out->down);
}

/* --- what Python calls -------------------------------------------------------------------------- */

/* CLAHE: out is [height, width]. */
int equalize(int variant, const uint8_t *image, int height, int width, double clip, int tiles,
             uint8_t *out) {
    const struct variant *code = variants[variant].code;
    struct arena arena = {0};
    struct equalizer equalizer;
    take_equalizer(&arena, height, width, tiles, &equalizer);
    if (!(arena.block = malloc(arena.used))) return -1;
    arena.used = 0;
    take_equalizer(&arena, height, width, tiles, &equalizer);
    prepare(code, image, height, width, clip, tiles, &equalizer);
    for (int y = 0; y < height; y++, image += width, out += width)
        code->equalize_row(image, equalizer.quads + equalizer.down.quad[y], &equalizer.across,
                           equalizer.down.share[y], equalizer.down.rest[y], width, out);
    free(arena.block);
    return 0;
}

struct shrinker {
    struct spans across, down;
    uint8_t *columns;
    float *strip, *sums;
};

static void take_shrinker(struct arena *arena, int height, int width, int out_height, int out_width,
                          struct shrinker *out) {
    take_spans(arena, width, out_width, &out->across);
    take_spans(arena, height, out_height, &out->down);
    out->columns = take(arena, (size_t)width * LANES);
    out->strip = take(arena, (size_t)out_width * LANES * sizeof *out->strip);
    out->sums = take(arena, (size_t)out_width * sizeof *out->sums);
}

/* CLAHE (not with tiles = 0), then the mean of each area: out is [out_height, out_width]; see
 * can_shrink. */
int equalize_and_shrink(int variant, const uint8_t *image, int height, int width, double clip, int tiles,
                        uint8_t *out, int out_height, int out_width) {
    const struct variant *code = variants[variant].code;
    struct arena arena = {0};
    struct equalizer equalizer;
    struct shrinker shrinker;
    for (int twice = 0; twice < 2; twice++) { /* first to know the size, then in earnest */
        arena.used = 0;
        if (tiles) take_equalizer(&arena, height, width, tiles, &equalizer);
        take_shrinker(&arena, height, width, out_height, out_width, &shrinker);
        if (!twice && !(arena.block = malloc(arena.used))) return -1;
    }
    if (tiles) prepare(code, image, height, width, clip, tiles, &equalizer);
    find_spans(width, out_width, &shrinker.across);
    find_spans(height, out_height, &shrinker.down);

    int loaded = -1; /* the first row of the strip at hand */
    for (int y = 0, k = 0; y < out_height; y++, out += out_width) {
        memset(shrinker.sums, 0, (size_t)out_width * sizeof *shrinker.sums);
        for (; k < shrinker.down.end[y]; k++) {
            int row = shrinker.down.source[k], first = row / LANES * LANES;
            if (first != loaded) {
                const uint8_t *rows[LANES];
                for (int i = 0; i < LANES; i++)
                    rows[i] = image + (size_t)(first + i < height ? first + i : height - 1) * width;
                code->transpose(rows, width, shrinker.columns);
                if (tiles)
                    code->strip_equalized(shrinker.columns, equalizer.quads, &equalizer.across,
                                          &equalizer.down, first, &shrinker.across, shrinker.strip);
                else
                    code->strip_plain(shrinker.columns, &shrinker.across, shrinker.strip);
                loaded = first;
            }
            code->add_row(shrinker.strip + row % LANES, LANES, shrinker.down.weight[k], out_width,
                          shrinker.sums);
        }
        code->store_row(shrinker.sums, out_width, out);
    }
    free(arena.block);
    return 0;
}

/* The mean of each area where the width stays: out is [out_height, width]; see can_shrink. */
int shrink_rows(int variant, const uint8_t *image, int height, int width, uint8_t *out, int out_height) {
    const struct variant *code = variants[variant].code;
    struct arena arena = {0};
    struct spans down;
    float *sums;
    for (int twice = 0; twice < 2; twice++) {
        arena.used = 0;
        take_spans(&arena, height, out_height, &down);
        sums = take(&arena, (size_t)width * sizeof *sums);
        if (!twice && !(arena.block = malloc(arena.used))) return -1;
    }
    find_spans(height, out_height, &down);
    for (int y = 0, k = 0; y < out_height; y++, out += width) {
        memset(sums, 0, (size_t)width * sizeof *sums);
        for (; k < down.end[y]; k++)
            code->add_pixels(image + (size_t)down.source[k] * width, down.weight[k], width, sums);
        code->store_row(sums, width, out);
    }
    free(arena.block);
    return 0;
}
