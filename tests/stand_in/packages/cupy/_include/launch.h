// A launch on the host: blocks one after the other, and threads too, or as fibers if they wait for
// each other; a device holds MAX_THREADS threads that wait for the grid. The threads of a block come
// in another order at each barrier: shuffled in the first launch of a kernel, last to first in the
// second, and so on by turns, so what needs a barrier and has none computes something else.
#pragma once

template <int... I> struct _Indices {};
template <int n, int... I> struct _Range : _Range<n - 1, n - 1, I...> {};
template <int... I> struct _Range<0, I...> { typedef _Indices<I...> type; };

static inline uint3 _position(unsigned i, dim3 size) {
    return {i % size.x, i / size.x % size.y, i / size.x / size.y};
}

enum { STACK = 1 << 16, MAX_THREADS = 1024 };
static unsigned _order[MAX_THREADS], _seed = 1, _n_launches, _is_cooperative;

static inline void _reset_shared() {  // Garbage to begin with.
    memset(__start_shared, 0xff, __stop_shared - __start_shared);
}
static inline void _reorder(unsigned n) {
    for (unsigned i = 0; i < n; i++) _order[i] = n - 1 - i;
    for (unsigned i = n; _n_launches % 2 && i > 1; i--) {
        _seed = _seed * 1664525u + 1013904223u;
        const unsigned j = (_seed >> 16) % i, last = _order[i - 1];
        _order[i - 1] = _order[j];
        _order[j] = last;
    }
}

#ifdef WITH_FIBERS
#include <setjmp.h>
#include <ucontext.h>
extern "C" void *malloc(size_t) noexcept;

enum _State { DONE, WAITS_FOR_BLOCK, WAITS_FOR_GRID };
struct _Fiber {
    jmp_buf state;
    bool exists;
    _State waits;
};
static _Fiber _fibers[MAX_THREADS];
static unsigned char *_stacks;
static jmp_buf _scheduler;
static unsigned _current;
static void (*_body)();

static void _pause(_State waits) {
    _fibers[_current].waits = waits;
    if (!_setjmp(_fibers[_current].state)) _longjmp(_scheduler, 1);
}
// A fiber runs one thread of a block after another: to create a context takes a system call.
static void _begin() {
    for (;;) {
        _body();
        _pause(DONE);
    }
}
static void _resume(unsigned i, unsigned first) {
    _current = first + i;
    threadIdx = _position(i, blockDim);
    _Fiber &fiber = _fibers[_current];
    if (_setjmp(_scheduler)) return;
    if (fiber.exists) _longjmp(fiber.state, 1);
    fiber.exists = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = _stacks + (size_t)STACK * _current;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, _begin, 0);
    setcontext(&context);
}

static inline void __syncthreads() { _pause(WAITS_FOR_BLOCK); }

static void _stop_fibers() {
    _status = DEADLOCK;
    for (_Fiber &fiber : _fibers) fiber.exists = false;
}

// Run the threads of a block to their end, or until all of them wait for the grid.
static _State _run_fibers(unsigned n, unsigned first) {
    for (;;) {
        unsigned counts[3] = {};
        _reorder(n);
        for (unsigned i = 0; i < n; i++) {
            _resume(_order[i], first);
            counts[_fibers[first + _order[i]].waits]++;
        }
        if (counts[DONE] == n) return DONE;
        if (counts[WAITS_FOR_GRID] == n) return WAITS_FOR_GRID;
        if (counts[WAITS_FOR_BLOCK] < n) {  // Others are done, or wait for something else.
            _stop_fibers();
            return DONE;
        }
    }
}

// All blocks of a cooperative launch take part in each round: they run one after the other, each
// until it waits for the grid. Shared memory does not survive that here, though CUDA keeps it.
template <class Body> static void _run_grid(unsigned n_blocks, unsigned n, Body body) {
    static Body *shared_body;
    shared_body = &body;
    _body = [] { (*shared_body)(); };
    if (!_stacks) _stacks = (unsigned char *)malloc((size_t)STACK * MAX_THREADS);
    unsigned n_waiting = 0;
    do {
        n_waiting = 0;
        for (unsigned i = 0; i < n_blocks && !_status; i++) {
            const unsigned block = _n_launches % 2 ? i : n_blocks - 1 - i;
            blockIdx = _position(block, gridDim);
            _reset_shared();
            n_waiting += _run_fibers(n, _is_cooperative ? block * n : 0) == WAITS_FOR_GRID;
        }
        if (n_waiting > 0 && (n_waiting < n_blocks || !_is_cooperative)) _stop_fibers();
    } while (n_waiting > 0 && !_status);
}
#else
template <class Body> static void _run_grid(unsigned n_blocks, unsigned n, Body body) {
    _reorder(n);
    for (unsigned block = 0; block < n_blocks && !_status; block++) {
        blockIdx = _position(block, gridDim);
        _reset_shared();
        for (unsigned i = 0; i < n; i++) {
            threadIdx = _position(_order[i], blockDim);
            body();
        }
    }
}
#endif

// CuPy compiles with -ftz=true, which leaves doubles alone: the processor here would flush both.
struct _FlushToZero {
#if defined(FLUSH_TO_ZERO) && defined(__SSE2__)
    const unsigned before = __builtin_ia32_stmxcsr();
    _FlushToZero() { __builtin_ia32_ldmxcsr(before | 0x8040); }
    ~_FlushToZero() { __builtin_ia32_ldmxcsr(before); }
#endif
};

template <auto kernel, class... P, int... I>
static int _run(void (*)(P...), _Indices<I...>, void **args, const int *sizes, int n_args) {
    const int expected[] = {(int)sizeof(P)..., 0};
    if (n_args != (int)sizeof...(P)) return WRONG_COUNT;
    for (int i = 0; i < n_args; i++)
        if (sizes[i] != expected[i]) return WRONG_SIZE + i;
    _status = OK;
    _n_launches++;
    const _FlushToZero flush;
    const unsigned n_blocks = gridDim.x * gridDim.y * gridDim.z;
    const unsigned n = blockDim.x * blockDim.y * blockDim.z;
    if (_is_cooperative && n_blocks * n > MAX_THREADS) return TOO_LARGE;
    _run_grid(n_blocks, n, [=] { kernel(*(P *)args[I]...); });
    return _status;
}
template <class... P> static typename _Range<sizeof...(P)>::type _indices(void (*)(P...)) {
    return {};
}

#define LAUNCHER(name)                                                                          \
    extern "C" int _launch(void **args, const int *sizes, int n_args, const unsigned *dims) {   \
        gridDim = {dims[0], dims[1], dims[2]};                                                  \
        blockDim = {dims[3], dims[4], dims[5]};                                                 \
        _is_cooperative = dims[6];                                                              \
        return _run<&name>(&name, _indices(&name), args, sizes, n_args);                        \
    }
