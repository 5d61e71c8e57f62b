// Launching a kernel: blocks over OS threads, threads of a block as fibres, arguments from a table of addresses.
#pragma once
#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>

#include "block.h"

namespace on_cpu {

constexpr size_t MAX_SHARED_BYTES = 232448; // of one block on Hopper
inline std::atomic<const char *> launch_error{nullptr};

template <class... A, size_t... I> void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::decay_t<A> *>(arguments[I])...);
}

template <class... A> struct Call {
    void (*kernel)(A...);
    void **arguments;
    static void run(void *self) {
        auto *c = static_cast<Call *>(self);
        call(c->kernel, c->arguments, std::index_sequence_for<A...>{});
    }
};

// Takes blocks one after the other until none is left.  Shared memory starts as 0xFF: reading it before writing shows.
inline void work(dim3 grid, dim3 size, size_t shared_bytes, void (*body)(void *), void *arguments,
    std::atomic<uint64_t> &next) {
    static thread_local Stacks stacks;
    unsigned threads = size.x * size.y * size.z;
    uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    std::vector<char> shared(shared_bytes + 64);
    Block b;
    b.fibres.resize(threads);
    b.block_size = size;
    b.grid_size = grid;
    b.body = body;
    b.arguments = arguments;
    b.dynamic_shared = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(shared.data()) + 63) & ~uintptr_t(63));
    here = &b;
    for (uint64_t n; (n = next++) < blocks && !launch_error.load();) {
        char *memory = stacks.reserve(threads);
        b.block = dim3(n % grid.x, n / grid.x % grid.y, n / (uint64_t(grid.x) * grid.y));
        memset(b.dynamic_shared, 0xFF, shared_bytes);
        for (unsigned i = 0; i < threads; i++) {
            dim3 thread(i % size.x, i / size.x % size.y, i / (size.x * size.y));
            b.fibres[i] = {fresh_stack(memory + i * STACK_BYTES, fibre_main), thread, i, State::RUNS, 0, 0};
        }
        run_block(b);
        if (b.error) launch_error = b.error;
    }
    here = nullptr;
}

// `body(arguments)` is one thread of the kernel; nothing here is made again for each kernel.
inline int launch(void (*body)(void *), void *arguments, dim3 grid, dim3 size, size_t shared_bytes, int os_threads) {
    uint64_t threads = uint64_t(size.x) * size.y * size.z, blocks = uint64_t(grid.x) * grid.y * grid.z;
    launch_error = nullptr;
    if (threads == 0 || threads > MAX_THREADS) launch_error = "invalid launch: a block has 1 to 1024 threads";
    else if (blocks == 0 || grid.y > 65535 || grid.z > 65535) launch_error = "invalid launch: bad grid size";
    else if (shared_bytes > MAX_SHARED_BYTES) launch_error = "invalid launch: too much shared memory";
    if (launch_error.load()) return 1;
    std::atomic<uint64_t> next{0};
    std::vector<std::thread> helpers;
    auto run = [&] { work(grid, size, shared_bytes, body, arguments, next); };
    for (int i = 1; i < os_threads && uint64_t(i) < blocks; i++) helpers.emplace_back(run);
    run();
    for (auto &helper : helpers) helper.join();
    return launch_error.load() != nullptr;
}

template <class... A> int launch(void (*kernel)(A...), void **arguments, dim3 grid, dim3 size, size_t shared_bytes,
    int os_threads) {
    Call<A...> each{kernel, arguments};
    return launch(Call<A...>::run, &each, grid, size, shared_bytes, os_threads);
}

// What a kernel declares, for the check of what it is given: kind and bits of each parameter.
struct Declared {
    char text[1024] = {};
    void add(const char *kind, size_t bits) {
        size_t at = strlen(text);
        bits ? snprintf(text + at, sizeof text - at, "%s%zu ", kind, bits) : snprintf(text + at, sizeof text - at, "%s ", kind);
    }
};
template <class T> void declare(Declared &all) {
    if (std::is_pointer<T>::value) all.add("pointer", 0);
    else if (std::is_same<T, bool>::value) all.add("bool", 8);
    else if (std::is_floating_point<T>::value) all.add("float", 8 * sizeof(T));
    else if (std::is_integral<T>::value) all.add("int", 8 * sizeof(T));
    else all.add("struct", 8 * sizeof(T));
}
template <class... A> const char *takes(void (*)(A...)) {
    static Declared all;
    if (!all.text[0]) (declare<std::decay_t<A>>(all), ...);
    return all.text;
}

} // namespace on_cpu

extern "C" inline __attribute__((used)) const char *on_cpu_error() {
    const char *text = on_cpu::launch_error;
    return text ? text : "";
}
extern "C" inline __attribute__((used)) void on_cpu_set_order(int order) { on_cpu::order = order; }

#define ON_CPU_EXPORT(KERNEL)                                                                                          \
    extern "C" const char *on_cpu_takes_##KERNEL() { return on_cpu::takes(KERNEL); }                                   \
    extern "C" int on_cpu_launch_##KERNEL(const unsigned *grid, const unsigned *block, size_t shared_bytes,            \
                                          void **arguments, int os_threads) {                                          \
        return on_cpu::launch(KERNEL, arguments, dim3(grid[0], grid[1], grid[2]),                                      \
                              dim3(block[0], block[1], block[2]), shared_bytes, os_threads);                           \
    }
