// A launch on the host: blocks one after the other, and threads too, or as fibers if they wait for
// each other.
#pragma once

template <int... I> struct _Indices {};
template <int n, int... I> struct _Range : _Range<n - 1, n - 1, I...> {};
template <int... I> struct _Range<0, I...> { typedef _Indices<I...> type; };

static unsigned char *_dynamic_shared;

static inline uint3 _position(unsigned i, dim3 size) {
    return {i % size.x, i / size.x % size.y, i / size.x / size.y};
}

#ifdef WITH_FIBERS
#include <setjmp.h>
#include <ucontext.h>
extern "C" void *malloc(size_t) noexcept;

struct _Fiber {
    jmp_buf state;
    enum { READY, AT_WARP, AT_BLOCK, DONE } waits;
    bool exists;
};
enum { STACK = 1 << 16, MAX_THREADS = 1024 };
static _Fiber _fibers[MAX_THREADS];
static unsigned char *_stacks;
static jmp_buf _scheduler;
static unsigned _current;
static void (*_body)();
static unsigned long long _lanes[MAX_THREADS + 32];

static void _wait(decltype(_Fiber::waits) at) {
    _fibers[_current].waits = at;
    if (!_setjmp(_fibers[_current].state)) _longjmp(_scheduler, 1);
}
// A fiber runs one thread of a block after another: to create a context takes a system call.
static void _begin() {
    for (;;) {
        _body();
        _wait(_Fiber::DONE);
    }
}
static void _resume(unsigned i) {
    _current = i;
    threadIdx = _position(i, blockDim);
    _Fiber &fiber = _fibers[i];
    if (_setjmp(_scheduler)) return;
    if (fiber.exists) _longjmp(fiber.state, 1);
    fiber.exists = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = _stacks + (size_t)STACK * i;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, _begin, 0);
    setcontext(&context);
}

static inline void __syncthreads() { _wait(_Fiber::AT_BLOCK); }
static inline void __syncwarp(unsigned = 0xffffffffu) { _wait(_Fiber::AT_WARP); }
template <class T> static T _exchange(T value, int lane, int width) {
    static_assert(sizeof(T) <= 8, "");
    int own = _current % 32, first = own / width * width;
    memcpy(&_lanes[_current], &value, sizeof(T));
    __syncwarp();
    if (lane >= first && lane < first + width)
        memcpy(&value, &_lanes[_current - own + lane], sizeof(T));
    __syncwarp();
    return value;
}
template <class T> static T __shfl_sync(unsigned, T value, int lane, int width = 32) {
    return _exchange(value, (int)(_current % 32) / width * width + lane % width, width);
}
template <class T> static T __shfl_down_sync(unsigned, T value, unsigned delta, int width = 32) {
    return _exchange(value, (int)(_current % 32 + delta), width);
}
template <class T> static T __shfl_up_sync(unsigned, T value, unsigned delta, int width = 32) {
    return _exchange(value, (int)(_current % 32) - (int)delta, width);
}
template <class T> static T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
    return _exchange(value, (int)(_current % 32) ^ mask, width);
}

// Whether all threads of a range that are not done wait there; they go on then.
static bool _release(unsigned first, unsigned end, decltype(_Fiber::waits) at) {
    unsigned n = 0;
    for (unsigned i = first; i < end; i++) {
        if (_fibers[i].waits != at && _fibers[i].waits != _Fiber::DONE) return false;
        n += _fibers[i].waits == at;
    }
    for (unsigned i = first; i < end; i++)
        if (_fibers[i].waits == at) _fibers[i].waits = _Fiber::READY;
    return n > 0;
}

template <class Body> static void _run_block(unsigned n, Body body) {
    static Body *shared_body;
    shared_body = &body;
    _body = [] { (*shared_body)(); };
    if (!_stacks) _stacks = (unsigned char *)malloc((size_t)STACK * MAX_THREADS);
    memset(_lanes, 0xff, sizeof(_lanes));
    for (unsigned i = 0; i < n; i++) _fibers[i].waits = _Fiber::READY;
    for (bool goes_on = true; goes_on;) {
        for (unsigned i = 0; i < n; i++)
            if (_fibers[i].waits == _Fiber::READY) _resume(i);
        goes_on = _release(0, n, _Fiber::AT_BLOCK);
        for (unsigned i = 0; i < n; i += 32)
            goes_on |= _release(i, i + 32 < n ? i + 32 : n, _Fiber::AT_WARP);
    }
    for (unsigned i = 0; i < n; i++)
        if (_fibers[i].waits != _Fiber::DONE) {
            _status = DEADLOCK;
            _fibers[i].exists = false;
        }
}
#else
template <class Body> static void _run_block(unsigned n, Body body) {
    for (unsigned i = 0; i < n; i++) {
        threadIdx = _position(i, blockDim);
        body();
    }
}
#endif

template <auto kernel, class... P, int... I>
static int _run(void (*)(P...), _Indices<I...>, void **args, const int *sizes, int n_args) {
    const int expected[] = {(int)sizeof(P)..., 0};
    if (n_args != (int)sizeof...(P)) return WRONG_COUNT;
    for (int i = 0; i < n_args; i++)
        if (sizes[i] != expected[i]) return WRONG_SIZE + i;
    _status = OK;
    for (unsigned block = 0; block < gridDim.x * gridDim.y * gridDim.z && !_status; block++) {
        blockIdx = _position(block, gridDim);
        _run_block(blockDim.x * blockDim.y * blockDim.z, [=] { kernel(*(P *)args[I]...); });
    }
    return _status;
}
template <class... P> static typename _Range<sizeof...(P)>::type _indices(void (*)(P...)) {
    return {};
}

#define LAUNCHER(name, ...)                                                                     \
    extern "C" int name(void **args, const int *sizes, int n_args, const unsigned *dims,        \
                        unsigned char *shared) {                                                \
        gridDim = {dims[0], dims[1], dims[2]};                                                  \
        blockDim = {dims[3], dims[4], dims[5]};                                                 \
        _dynamic_shared = shared;                                                               \
        return _run<&__VA_ARGS__>(&__VA_ARGS__, _indices(&__VA_ARGS__), args, sizes, n_args);   \
    }
