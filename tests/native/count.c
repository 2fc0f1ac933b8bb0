/* One function of the library on one fixed image: `make bench-guard` counts its instructions.
 *
 *   count VARIANT equalize|shrink|rows|warp
 */

#include "../../tumorbatch/native/pixels.c"
#include "../../tumorbatch/native/variants.c"
#include "../../tumorbatch/native/warp.c"

enum { SIDE = 400, OUT = 150, ROWS = 24 };

static uint8_t image[SIDE * SIDE], out[SIDE * SIDE];

int main(int count, char **arguments) {
    if (count != 3) return 2;
    /* A gradient with texture: neither flat tiles nor noise alone. */
    uint32_t state = 1;
    for (int i = 0; i < SIDE * SIDE; i++) {
        state = state * 1664525u + 1013904223u;
        image[i] = (uint8_t)(i / SIDE / 4 + i % SIDE / 4 + (int)(state >> 28));
    }
    for (int index = 0; variant_name(index); index++) {
        if (strcmp(variant_name(index), arguments[1])) continue;
        switch (arguments[2][0]) {
        case 'e': return equalize_and_shrink(index, image, SIDE, SIDE, 2., 16, out, OUT, OUT);
        case 's': return equalize_and_shrink(index, image, SIDE, SIDE, 0., 0, out, OUT, OUT);
        case 'r': return shrink_rows(index, image, SIDE, SIDE, out, ROWS);
        case 'w': return warp(index, image, 1, SIDE, SIDE, (const float[]){1.1f, .1f, -3, 0, .95f, 2}, out);
        }
    }
    return 2;
}
