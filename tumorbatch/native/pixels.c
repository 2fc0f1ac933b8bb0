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
#include <stdlib.h>
#include <string.h>

#include "variants.h"

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
    const struct variant *code = variant_at(variant);
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
    const struct variant *code = variant_at(variant);
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
    const struct variant *code = variant_at(variant);
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
