/* The inner loops for each instruction set, and which of them this processor can run. */

#include "variants.h"

#include <float.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "float32 operations must be rounded to float32"
#endif

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

static inline int32_t word_at(const uint8_t *bytes) {
    return (int32_t)((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
                     (uint32_t)bytes[3] << 24);
}

#define FOUR_WORDS(bytes, at)                                                                     \
    {word_at((bytes) + at[0]), word_at((bytes) + at[1]), word_at((bytes) + at[2]),                    \
     word_at((bytes) + at[3])}
#define FOUR(table, at) {(table)[at[0]], (table)[at[1]], (table)[at[2]], (table)[at[3]]}

#define WIDTH 4
#define GATHER(table, at) ((portable_ints)FOUR(table, at))
#define GATHER_BYTES(bytes, at) ((portable_ints)FOUR_WORDS(bytes, at))
#define NARROW(x) __builtin_convertvector(x, portable_bytes)
#define TARGET
#define NAME(x) portable_##x
#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* The first numbers of 16 bits as bytes. */
__attribute__((target("sse4.1"))) static inline uint32_t low_4(__m128i x) {
    return (uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(x, x));
}
__attribute__((target("avx2"))) static inline uint64_t low_8(__m128i x) {
    return (uint64_t)_mm_cvtsi128_si64(_mm_packus_epi16(x, x));
}

#define WIDTH 4
#define GATHER(table, at) ((sse4_ints)FOUR(table, at))
#define GATHER_BYTES(bytes, at) ((sse4_ints)FOUR_WORDS(bytes, at))
#define NARROW(x) low_4(_mm_packus_epi32((__m128i)(x), (__m128i)(x)))
#define TARGET __attribute__((target("sse4.1")))
#define NAME(x) sse4_##x
#include "kernels.h"
#define WIDTH 8
#define GATHER(table, at) ((avx2_ints)_mm256_i32gather_epi32(table, (__m256i)at, 4))
#define GATHER_BYTES(bytes, at) ((avx2_ints)_mm256_i32gather_epi32((const int *)(bytes), (__m256i)at, 1))
#define NARROW(x)                                                                                 \
    low_8(_mm_packus_epi32(_mm256_castsi256_si128((__m256i)(x)),                                      \
                           _mm256_extracti128_si256((__m256i)(x), 1)))
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

const struct variant *variant_at(int index) { return variants[index].code; }
