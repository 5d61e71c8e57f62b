// One block of CUDA threads: who waits where, in which order lanes run, and what is a mistake.
#pragma once
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "fibres.h"

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

namespace on_cpu {

enum class State : uint8_t { RUNS, AT_WARP, AT_BLOCK, DONE };
enum Order { FORWARD, REVERSE, SHUFFLED }; // values above SHUFFLED are further seeds
constexpr unsigned WARP = 32, MAX_THREADS = 1024;

struct Fibre {
    void *stack_pointer;
    dim3 thread;
    unsigned index;
    State state;
    int barrier;   // which __syncthreads it waits at
    unsigned mask; // lanes it waits for, at a warp barrier
};

struct Block {
    std::vector<Fibre> fibres;
    dim3 block, block_size, grid_size;
    char *dynamic_shared = nullptr;
    Fibre *current = nullptr;
    void *scheduler = nullptr;
    void (*body)(void *) = nullptr;
    void *arguments = nullptr;
    const char *error = nullptr;
    uint64_t exchanged[2][MAX_THREADS]; // values on their way between lanes; two sets, used in turn
    uint8_t turn[MAX_THREADS] = {};
};

inline thread_local Block *here = nullptr;
inline int order = FORWARD;

inline void give_way() { on_cpu_switch(&here->current->stack_pointer, here->scheduler); }

inline void fibre_main() {
    for (;;) {
        here->body(here->arguments);
        here->current->state = State::DONE;
        give_way();
    }
}

inline void wait(State state, int barrier, unsigned mask = ~0u) {
    Fibre *me = here->current;
    me->state = state;
    me->barrier = barrier;
    me->mask = mask;
    give_way();
}

// The numbers 0..count-1 in the order in which lanes or warps get their turn.
class Turns {
  public:
    explicit Turns(unsigned block) : seed(2463534242u * (order + 1) + block + 1) {}
    std::vector<unsigned> of(unsigned count) {
        std::vector<unsigned> turns(count);
        std::iota(turns.begin(), turns.end(), 0u);
        if (order == REVERSE) std::reverse(turns.begin(), turns.end());
        if (order >= SHUFFLED)
            for (unsigned i = count; i > 1; i--) std::swap(turns[i - 1], turns[random() % i]);
        return turns;
    }

  private:
    unsigned random() {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        return seed ^= seed << 5;
    }
    unsigned seed;
};

// Run the lanes of a warp until all wait at a block barrier or are done.
inline void run_warp(Block &b, unsigned first, unsigned lanes, const std::vector<unsigned> &turns) {
    for (;;) {
        for (unsigned lane : turns) {
            Fibre &f = b.fibres[first + lane];
            if (f.state != State::RUNS) continue;
            b.current = &f;
            on_cpu_switch(&b.scheduler, f.stack_pointer);
        }
        unsigned waiting = 0, alive = 0, released = 0;
        for (unsigned i = 0; i < lanes; i++) {
            if (b.fibres[first + i].state == State::AT_WARP) waiting |= 1u << i;
            if (b.fibres[first + i].state != State::DONE) alive |= 1u << i;
        }
        if (!waiting) return;
        for (unsigned i = 0; i < lanes; i++)
            if (waiting >> i & 1) {
                unsigned needed = b.fibres[first + i].mask & alive;
                if ((needed & waiting) == needed) released |= 1u << i;
            }
        if (!released) {
            b.error = "deadlock: lanes named in a _sync mask never arrived";
            return;
        }
        for (unsigned i = 0; i < lanes; i++)
            if (released >> i & 1) b.fibres[first + i].state = State::RUNS;
    }
}

inline void run_block(Block &b) {
    unsigned threads = b.fibres.size(), warps = (threads + WARP - 1) / WARP;
    Turns turns(b.block.x);
    for (;;) {
        for (unsigned warp : turns.of(warps)) {
            unsigned lanes = std::min(WARP, threads - warp * WARP);
            run_warp(b, warp * WARP, lanes, turns.of(lanes));
            if (b.error) return;
        }
        unsigned waiting = 0;
        int barrier = -1;
        for (Fibre &f : b.fibres)
            if (f.state == State::AT_BLOCK) {
                if (waiting++ && f.barrier != barrier) b.error = "divergent __syncthreads: at different lines";
                barrier = f.barrier;
            }
        if (waiting && waiting != threads && !b.error) b.error = "divergent __syncthreads: some threads have ended";
        if (!waiting || b.error) return;
        for (Fibre &f : b.fibres) f.state = State::RUNS;
    }
}

} // namespace on_cpu
