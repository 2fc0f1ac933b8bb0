/* The inner loops, compiled once for each instruction set.
 *
 * variants.c includes this file several times, with TARGET, an attribute that chooses the instruction
 * set; NAME(x), which gives each copy names of its own; WIDTH, how many numbers of 32 bits a vector
 * has; GATHER(table, at), the vector of the entries table[at[0]], table[at[1]], ...; GATHER_BYTES(bytes,
 * at), that of the four bytes from bytes[at[0]] on, and so on, the first one lowest;
 * NARROW(x), the numbers of a vector, 0 to 255, as bytes.
 */

typedef float NAME(floats) __attribute__((vector_size(4 * WIDTH)));
typedef int32_t NAME(ints) __attribute__((vector_size(4 * WIDTH)));
typedef uint8_t NAME(bytes) __attribute__((vector_size(WIDTH)));
/* Each number, but at least 0 and at most `most`; a comparison gives all bits or none. */
#define CLAMP(x, most) (((x) & ((x) >= 0) & ((x) <= (most))) | (((x) > (most)) & (most)))
#define TO_FLOATS(x) __builtin_convertvector(x, NAME(floats))
enum { NAME(parts) = LANES / WIDTH }; /* vectors that hold one column of a strip */

/* The table of one tile: the grey value that each grey value becomes.
 *
 * The histogram is clipped at `limit`; what is cut off is spread over all bins, the remainder in even
 * steps; table[v] = round(255 / area * sum of the bins up to v). */
TARGET static void NAME(tile_table)(uint32_t counts[4][BINS], int32_t area, int32_t limit,
                                    uint8_t *table) {
    int32_t bins[BINS], excess = 0;
    for (int v = 0; v < BINS; v++) {
        int32_t count = (int32_t)(counts[0][v] + counts[1][v] + counts[2][v] + counts[3][v]);
        int32_t kept = count < limit ? count : limit;
        excess += count - kept;
        bins[v] = kept;
    }
    int32_t share = excess / BINS, remainder = excess % BINS;
    for (int v = 0; v < BINS; v++) bins[v] += share;
    if (remainder)
        for (int v = 0, step = BINS / remainder; remainder > 0; v += step, remainder--) bins[v]++;
    float scale = (float)(BINS - 1) / (float)area;
    for (int v = 1; v < BINS; v++) bins[v] += bins[v - 1];
    for (int v = 0; v < BINS; v++) table[v] = (uint8_t)to_integer((float)bins[v] * scale);
}

/* Four tables side by side, so that a pixel costs one load: byte 0 left above, 1 right above,
 * 2 left below, 3 right below. */
TARGET static void NAME(interleave)(const uint8_t *const tables[4], uint32_t *quad) {
    for (int v = 0; v < BINS; v++)
        quad[v] = (uint32_t)tables[0][v] | (uint32_t)tables[1][v] << 8 | (uint32_t)tables[2][v] << 16 |
                  (uint32_t)tables[3][v] << 24;
}

/* LANES rows of pixels -> LANES pixels of each column: one load then gives a column of the strip. */
TARGET static void NAME(transpose)(const uint8_t *const rows[LANES], int width, uint8_t *columns) {
    int x = 0;
    for (; x + 8 <= width; x += 8, columns += 8 * LANES) {
        uint64_t word[LANES];
        for (int i = 0; i < LANES; i++) memcpy(&word[i], rows[i] + x, 8);
        /* Exchange blocks of 4 x 4 bytes, then 2 x 2, then single ones: Hacker's Delight, 7-3. */
        for (int i = 0; i < 4; i++) exchange(&word[i], &word[i + 4], 32, 0x00000000FFFFFFFFu);
        for (int i = 0; i < LANES; i += 4) {
            exchange(&word[i], &word[i + 2], 16, 0x0000FFFF0000FFFFu);
            exchange(&word[i + 1], &word[i + 3], 16, 0x0000FFFF0000FFFFu);
        }
        for (int i = 0; i < LANES; i += 2) exchange(&word[i], &word[i + 1], 8, 0x00FF00FF00FF00FFu);
        memcpy(columns, word, sizeof word);
    }
    for (; x < width; x++)
        for (int i = 0; i < LANES; i++) *columns++ = rows[i][x];
}

/* The equalised value of a pixel, a whole number as float32:
 *
 *   round((t0 (1 - a) + t1 a) (1 - b) + (t2 (1 - a) + t3 a) b)
 *
 * t0 to t3: what the tables of the four nearest tiles make of it; a, b: how far it lies from the
 * centre of the tile before it to that of the next one, across and down. */
#define BLEND(quad, a, a_rest, b, b_rest)                                                         \
    (((TO_FLOATS(quad & 255) * (a_rest) + TO_FLOATS(quad >> 8 & 255) * (a)) * (b_rest) +              \
      (TO_FLOATS(quad >> 16 & 255) * (a_rest) + TO_FLOATS(quad >> 24 & 255) * (a)) * (b)) +           \
     ROUND - ROUND)

/* Area means along the rows of one strip, of the equalised values where there are `quads`.
 *
 *   sums[x, row] = sum over k of value[source[k], row] * weight[k], k in column x's span
 *
 * columns: uint8 [width, LANES]; sums: float32 [out_width, LANES]. */
TARGET static inline __attribute__((always_inline)) void NAME(strip)(
    const uint8_t *columns, const uint32_t *quads, const struct tiles *across, const struct tiles *down,
    int first_row, const struct spans *spans, float *sums) {
    NAME(floats) value[NAME(parts)] = {{0}}, b[NAME(parts)], b_rest[NAME(parts)];
    NAME(ints) row_of_tiles[NAME(parts)];
    if (quads) {
        memcpy(row_of_tiles, down->quad + first_row, sizeof row_of_tiles);
        memcpy(b, down->share + first_row, sizeof b);
        memcpy(b_rest, down->rest + first_row, sizeof b_rest);
    }
    for (int x = 0, k = 0, last = -1; x < spans->length; x++, sums += LANES) {
        NAME(floats) sum[NAME(parts)] = {{0}};
        for (; k < spans->end[x]; k++) {
            int column = spans->source[k];
            if (column != last) {
                const uint8_t *pixel = columns + (size_t)column * LANES;
                for (int i = 0; i < NAME(parts); i++) {
                    NAME(bytes) some;
                    memcpy(&some, pixel + i * WIDTH, sizeof some);
                    NAME(ints) level = __builtin_convertvector(some, NAME(ints));
                    if (quads) {
                        const int32_t *quad = (const int32_t *)quads + across->quad[column];
                        float a = across->share[column], a_rest = across->rest[column];
                        NAME(ints) at = row_of_tiles[i] + level;
                        NAME(ints) four = GATHER(quad, at);
                        value[i] = BLEND(four, a, a_rest, b[i], b_rest[i]);
                    } else {
                        value[i] = TO_FLOATS(level);
                    }
                }
                last = column;
            }
            for (int i = 0; i < NAME(parts); i++) sum[i] += value[i] * spans->weight[k];
        }
        memcpy(sums, sum, sizeof sum);
    }
}

TARGET static void NAME(strip_equalized)(
    const uint8_t *columns, const uint32_t *quads, const struct tiles *across, const struct tiles *down,
    int first_row, const struct spans *spans, float *sums) {
    NAME(strip)(columns, quads, across, down, first_row, spans, sums);
}

TARGET static void NAME(strip_plain)(const uint8_t *columns, const struct spans *spans, float *sums) {
    NAME(strip)(columns, NULL, NULL, NULL, 0, spans, sums);
}

/* One row of the equalised image. */
TARGET static void NAME(equalize_row)(const uint8_t *pixels, const uint32_t *quads,
                                      const struct tiles *across, float b, float b_rest, int width,
                                      uint8_t *out) {
    for (int x = 0; x < width; x += WIDTH) {
        size_t count = width - x < WIDTH ? (size_t)(width - x) : WIDTH;
        NAME(bytes) some = {0};
        NAME(floats) a, a_rest;
        NAME(ints) at;
        copy_up_to(&some, pixels + x, count, WIDTH);
        memcpy(&a, across->share + x, sizeof a);
        memcpy(&a_rest, across->rest + x, sizeof a_rest);
        memcpy(&at, across->quad + x, sizeof at);
        at += __builtin_convertvector(some, NAME(ints));
        NAME(ints) quad = GATHER((const int32_t *)quads, at);
        NAME(floats) value = BLEND(quad, a, a_rest, b, b_rest);
        some = (NAME(bytes))NARROW(__builtin_convertvector(value, NAME(ints)));
        copy_up_to(out + x, &some, count, WIDTH);
    }
}

/* sums[x] += values[x, row] * weight: a row of a strip into the rows of the result. */
TARGET static void NAME(add_row)(const float *values, int stride, float weight, int width,
                                 float *sums) {
    for (int x = 0; x < width; x++) sums[x] += values[(size_t)x * stride] * weight;
}

/* The same for a row of pixels. */
TARGET static void NAME(add_pixels)(const uint8_t *pixels, float weight, int width, float *sums) {
    for (int x = 0; x < width; x++) sums[x] += (float)pixels[x] * weight;
}

TARGET static void NAME(store_row)(const float *sums, int width, uint8_t *out) {
    for (int x = 0; x < width; x++) out[x] = (uint8_t)to_integer(sums[x]);
}

/* One row of a warped image, bilinear between the four nearest pixels, in 1/32 of a pixel:
 *
 *   round(((p00 (32 - fy) + p10 fy) (32 - fx) + (p01 (32 - fy) + p11 fy) fx) / 1024)
 *
 * pairs: see repeat_edge in warp.c; rows of `stride` bytes. at_x, at_y: where the row's first pixel
 * lies in the image; right, below: int32 [width], how much further each column does; all four in
 * 1/1024 of a pixel. */
TARGET static void NAME(warp_row)(const uint8_t *pairs, int stride, int height, int width, int32_t at_x,
                                  int32_t at_y, const int32_t *right, const int32_t *below, uint8_t *out) {
    for (int x = 0; x < width; x += WIDTH) {
        size_t count = width - x < WIDTH ? (size_t)(width - x) : WIDTH;
        NAME(ints) column, row;
        memcpy(&column, right + x, sizeof column);
        memcpy(&row, below + x, sizeof row);
        column = (column + at_x) >> 5;
        row = (row + at_y) >> 5;
        NAME(ints) fx = column & 31, fy = row & 31;
        /* Further out there is only the repeated edge. */
        column = (column >> 5) + 1;
        row = (row >> 5) + 1;
        column = CLAMP(column, width);
        row = CLAMP(row, height);
        NAME(ints) at = row * stride + column * 2;
        /* From the lowest byte on: p00, p10, p01, p11. Two columns share a word, 16 bits each. */
        NAME(ints) four = GATHER_BYTES(pairs, at);
        NAME(ints) upper = four & 0x00FF00FF, lower = four >> 8 & 0x00FF00FF;
        NAME(ints) both = upper * 32 + (lower - upper) * fy;
        NAME(ints) before = both & 0xFFFF, behind = both >> 16;
        NAME(ints) value = (before * 32 + (behind - before) * fx + 512) >> 10;
        NAME(bytes) some = (NAME(bytes))NARROW(value);
        copy_up_to(out + x, &some, count, WIDTH);
    }
}

static const struct variant NAME(variant) = {
    NAME(tile_table), NAME(interleave), NAME(transpose),  NAME(strip_equalized), NAME(strip_plain),
    NAME(equalize_row), NAME(add_row),  NAME(add_pixels), NAME(store_row),
    NAME(warp_row),
};

#undef BLEND
#undef GATHER
#undef GATHER_BYTES
#undef NARROW
#undef CLAMP
#undef WIDTH
#undef TO_FLOATS
#undef TARGET
#undef NAME
