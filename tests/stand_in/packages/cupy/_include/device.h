// CUDA C++ on the host: qualifiers, indices, types, math. No header of the system is read,
// which makes a kernel compile in a tenth of a second.
#pragma once

typedef decltype(sizeof(0)) size_t;
typedef decltype((char *)0 - (char *)0) ptrdiff_t;

#define __global__
#define __device__
#define __host__
#if defined(__ELF__) && !defined(__SANITIZE_ADDRESS__)
#define __shared__ static __attribute__((section("shared")))
extern "C" char __start_shared[] __attribute__((weak)), __stop_shared[] __attribute__((weak));
#else
#define __shared__ static
static char __start_shared[1], *__stop_shared = __start_shared;
#endif
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
#define CUPY_FOR(i, n)                                                                      \
    for (ptrdiff_t i = (ptrdiff_t)blockIdx.x * blockDim.x + threadIdx.x; i < (ptrdiff_t)(n); \
         i += (ptrdiff_t)blockDim.x * gridDim.x)

// An access outside of an array, or threads that wait for each other; the launch returns it.
enum { OK, ILLEGAL_ADDRESS, DEADLOCK, WRONG_COUNT, TOO_LARGE, WRONG_SIZE = 100 };
static int _status;

// --- math: float functions for float, as CUDA has them ------------------------------------------

extern "C" {
void *memcpy(void *, const void *, size_t) noexcept;
void *memset(void *, int, size_t) noexcept;
}
#define UNARY(name)                                                                             \
    extern "C" double name(double) noexcept;                                                    \
    extern "C" float name##f(float) noexcept;                                                   \
    static inline float name(float x) { return name##f(x); }
#define BINARY(name)                                                                            \
    extern "C" double name(double, double) noexcept;                                            \
    extern "C" float name##f(float, float) noexcept;                                            \
    static inline float name(float x, float y) { return name##f(x, y); }
UNARY(exp) UNARY(expm1) UNARY(log) UNARY(log1p) UNARY(sqrt) UNARY(sin) UNARY(cos) UNARY(tanh)
UNARY(erf) UNARY(floor) UNARY(ceil) UNARY(round) UNARY(rint) UNARY(fabs) UNARY(trunc)
UNARY(log2) UNARY(log10) UNARY(tan) UNARY(sinh) UNARY(cosh) UNARY(asin) UNARY(acos) UNARY(atan)
UNARY(asinh) UNARY(acosh) UNARY(atanh)
BINARY(pow) BINARY(fmax) BINARY(fmin) BINARY(copysign) BINARY(fmod) BINARY(hypot) BINARY(atan2)
static inline double pow(double x, int n) { return pow(x, (double)n); }
static inline float pow(float x, int n) { return powf(x, (float)n); }
static inline int abs(int x) { return x < 0 ? -x : x; }
static inline long long abs(long long x) { return x < 0 ? -x : x; }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }
static inline bool isnan(double x) { return __builtin_isnan(x); }
static inline bool isinf(double x) { return __builtin_isinf(x); }
static inline bool isfinite(double x) { return __builtin_isfinite(x); }
#define EXTREMES(T)                                                                             \
    static inline T max(T x, T y) { return x < y ? y : x; }                                     \
    static inline T min(T x, T y) { return y < x ? y : x; }
EXTREMES(int)
EXTREMES(long)
EXTREMES(long long)
#define FLOATING_EXTREMES(T, X, Y)                                                              \
    static inline T max(X x, Y y) { return fmax((T)x, (T)y); }                                  \
    static inline T min(X x, Y y) { return fmin((T)x, (T)y); }
FLOATING_EXTREMES(float, float, float)
FLOATING_EXTREMES(double, double, double)
FLOATING_EXTREMES(double, float, double)
FLOATING_EXTREMES(double, double, float)

// --- the half-width type of CuPy ----------------------------------------------------------------

static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof(x));
    return bits;
}
static inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

class float16 {
    unsigned short bits;

public:
    float16() = default;
    float16(float x) {
        unsigned u = __float_as_uint(x), sign = u >> 16 & 0x8000u;
        u &= 0x7fffffffu;
        if (u > 0x7f800000u) u = 0x7e00u;
        else if (u >= 0x477ff000u) u = 0x7c00u;  // From 65520 on, infinity is nearest.
        else if (u < 0x38800000u) u = (unsigned)rintf(__uint_as_float(u) * 16777216.0f);
        else u = (u + 0xfffu + (u >> 13 & 1u) - 0x38000000u) >> 13;
        bits = (unsigned short)(sign | u);
    }
    operator float() const {
        unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, rest = bits & 1023u;
        float x = exponent == 0    ? (float)rest / 16777216.0f
                  : exponent == 31 ? __uint_as_float(0x7f800000u | rest << 13)
                                   : __uint_as_float((exponent + 112u) << 23 | rest << 13);
        return __uint_as_float(__float_as_uint(x) | sign);
    }
};
