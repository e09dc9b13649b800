// CUDA C++ on the host: qualifiers, indices, types, math, atomics. No header of the system is read,
// which makes a kernel compile in a tenth of a second.
#pragma once

typedef decltype(sizeof(0)) size_t;
typedef decltype((char *)0 - (char *)0) ptrdiff_t;

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;
static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;
#define CUPY_FOR(i, n)                                                                      \
    for (ptrdiff_t i = (ptrdiff_t)blockIdx.x * blockDim.x + threadIdx.x; i < (ptrdiff_t)(n); \
         i += (ptrdiff_t)blockDim.x * gridDim.x)

// An access outside of an array, or threads that wait for each other; the launch returns it.
enum { OK, ILLEGAL_ADDRESS = 1, DEADLOCK = 2, WRONG_COUNT = 3, WRONG_SIZE = 100 };
static int _status;

#define VECTORS(T, name)                                                                        \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                          \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; };          \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                           \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTORS(float, float)
VECTORS(double, double)
VECTORS(int, int)
VECTORS(unsigned, uint)
VECTORS(unsigned char, uchar)

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
UNARY(exp) UNARY(exp2) UNARY(expm1) UNARY(log) UNARY(log2) UNARY(log10) UNARY(log1p)
UNARY(sqrt) UNARY(cbrt) UNARY(sin) UNARY(cos) UNARY(tan) UNARY(asin) UNARY(acos) UNARY(atan)
UNARY(sinh) UNARY(cosh) UNARY(tanh) UNARY(asinh) UNARY(acosh) UNARY(atanh) UNARY(erf) UNARY(erfc)
UNARY(lgamma) UNARY(tgamma) UNARY(floor) UNARY(ceil) UNARY(trunc) UNARY(round) UNARY(rint)
UNARY(fabs)
BINARY(pow) BINARY(fmod) BINARY(fmax) BINARY(fmin) BINARY(copysign) BINARY(atan2) BINARY(hypot)
extern "C" double fma(double, double, double) noexcept;
extern "C" float fmaf(float, float, float) noexcept;
static inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
static inline double pow(double x, int n) { return pow(x, (double)n); }
static inline float pow(float x, int n) { return powf(x, (float)n); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
static inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752440f); }
static inline float normcdf(float x) { return normcdff(x); }

static inline int abs(int x) { return x < 0 ? -x : x; }
static inline long long abs(long long x) { return x < 0 ? -x : x; }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }
#define TESTS(T)                                                                                \
    static inline bool isnan(T x) { return __builtin_isnan(x); }                                \
    static inline bool isinf(T x) { return __builtin_isinf(x); }                                \
    static inline bool isfinite(T x) { return __builtin_isfinite(x); }                          \
    static inline bool signbit(T x) { return __builtin_signbit(x); }
TESTS(float)
TESTS(double)
#define EXTREMES(T)                                                                             \
    static inline T max(T x, T y) { return x < y ? y : x; }                                     \
    static inline T min(T x, T y) { return y < x ? y : x; }
EXTREMES(int)
EXTREMES(unsigned)
EXTREMES(long)
EXTREMES(unsigned long)
EXTREMES(long long)
EXTREMES(unsigned long long)
static inline float max(float x, float y) { return fmaxf(x, y); }
static inline float min(float x, float y) { return fminf(x, y); }
static inline double max(double x, double y) { return fmax(x, y); }
static inline double min(double x, double y) { return fmin(x, y); }
static inline double max(float x, double y) { return fmax((double)x, y); }
static inline double max(double x, float y) { return fmax(x, (double)y); }
static inline double min(float x, double y) { return fmin((double)x, y); }
static inline double min(double x, float y) { return fmin(x, (double)y); }

static inline float __expf(float x) { return expf(x); }
static inline float __logf(float x) { return logf(x); }
static inline float __powf(float x, float y) { return powf(x, y); }
static inline float __sinf(float x) { return sinf(x); }
static inline float __cosf(float x) { return cosf(x); }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __frsqrt_rn(float x) { return rsqrtf(x); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __dadd_rn(double x, double y) { return x + y; }
template <class To, class From> static inline To _cast_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &x, sizeof(to));
    return to;
}
static inline int __float_as_int(float x) { return _cast_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return _cast_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return _cast_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return _cast_bits<float>(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline unsigned __umulhi(unsigned x, unsigned y) {
    return (unsigned)((unsigned long long)x * y >> 32);
}
template <class T> static inline T __ldg(const T *pointer) { return *pointer; }

// --- atomics: threads run one after the other ----------------------------------------------------

#define ATOMIC(name, T, value)                                                                  \
    static inline T name(T *address, T x) {                                                     \
        T old = *address;                                                                       \
        *address = (value);                                                                     \
        return old;                                                                             \
    }
#define ATOMICS(T)                                                                              \
    ATOMIC(atomicAdd, T, old + x) ATOMIC(atomicMax, T, old < x ? x : old)                       \
    ATOMIC(atomicMin, T, x < old ? x : old) ATOMIC(atomicExch, T, x)
ATOMICS(int)
ATOMICS(unsigned)
ATOMICS(unsigned long long)
ATOMIC(atomicAdd, float, old + x)
ATOMIC(atomicAdd, double, old + x)
ATOMIC(atomicExch, float, x)
template <class T> static inline T atomicCAS(T *address, T compare, T x) {
    T old = *address;
    if (old == compare) *address = x;
    return old;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// --- the half-width types of CuPy ----------------------------------------------------------------

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

class bfloat16 {
    unsigned short bits;

public:
    bfloat16() = default;
    bfloat16(float x) {
        unsigned u = __float_as_uint(x);
        bits = (unsigned short)(x != x ? 0x7fc0u : (u + 0x7fffu + (u >> 16 & 1u)) >> 16);
    }
    operator float() const { return __uint_as_float((unsigned)bits << 16); }
};
