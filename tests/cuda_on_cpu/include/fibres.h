// Fibres: one stack per CUDA thread, switched by hand, so that a thread can stop at a barrier and go on later.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace on_cpu {

// Saves the callee-saved registers and the stack pointer, and continues where `load` was saved (System V, x86-64).
extern "C" void on_cpu_switch(void **save, void *load);
#if defined(__x86_64__)
__asm__(R"(
.text
.weak on_cpu_switch
.type on_cpu_switch,@function
on_cpu_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp,(%rdi)
    movq %rsi,%rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
)");
constexpr int SAVED_WORDS = 6;
#else
#error "the CUDA runner switches stacks on x86-64 only"
#endif

constexpr size_t STACK_BYTES = 64 * 1024;

// A stack pointer that will enter `start` when switched to.
inline void *fresh_stack(char *stack, void (*start)()) {
    uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + STACK_BYTES) & ~uintptr_t(15);
    void **at = reinterpret_cast<void **>(top - 16);
    *--at = nullptr; // `start` never returns
    *--at = reinterpret_cast<void *>(start);
    for (int i = 0; i < SAVED_WORDS; i++) *--at = nullptr;
    return at;
}

// Stacks of the fibres of one OS thread; only pages that are used cost memory.
class Stacks {
  public:
    ~Stacks() {
        if (memory) munmap(memory, bytes);
    }
    char *reserve(size_t count) {
        if (bytes < count * STACK_BYTES) {
            if (memory) munmap(memory, bytes);
            bytes = count * STACK_BYTES;
            memory = static_cast<char *>(
                mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        }
        return memory;
    }

  private:
    char *memory = nullptr;
    size_t bytes = 0;
};

} // namespace on_cpu
