// What is in flight when a sample comes: C++ exceptions through twenty frames, and C++20
// coroutines, which are resumed from main. usage: in_flight MODE SECONDS [WARM_UP_SECONDS]
#include <coroutine>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

static volatile uint64_t sink;

static double thread_seconds() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return double(t.tv_sec) + double(t.tv_nsec) / 1e9;
}

struct Thrown {
    uint64_t value;
};

// Something with a destructor, so that every frame has a landing pad of its own.
struct Guard {
    uint64_t &count;
    ~Guard() { count++; }
};

extern "C" NOINLINE uint64_t descend(int depth, uint64_t &count) {
    Guard guard{count};
    if (depth == 0) {
        throw Thrown{count};
    }
    uint64_t below = descend(depth - 1, count);
    asm volatile("" : "+r"(below));
    return below;
}

extern "C" NOINLINE uint64_t catches(uint64_t &count) {
    try {
        return descend(20, count);
    } catch (const Thrown &thrown) {
        return thrown.value;
    }
}

extern "C" NOINLINE uint64_t throws(double seconds) {
    uint64_t count = 0;
    for (double start = thread_seconds(); thread_seconds() - start < seconds;) {
        for (int i = 0; i < 100; i++) {
            sink = catches(count);
        }
    }
    return count;
}

struct Task {
    struct promise_type {
        uint64_t value = 0;
        Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        std::suspend_always yield_value(uint64_t next) {
            value = next;
            return {};
        }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
    std::coroutine_handle<promise_type> handle;
};

extern "C" NOINLINE uint64_t leaf(uint64_t x) {
    for (int i = 0; i < 1000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

NOINLINE Task generator(uint64_t x) {
    for (;;) {
        x = leaf(x);
        co_yield x;
    }
}

extern "C" NOINLINE uint64_t resumes(double seconds) {
    Task task = generator(88172645463325252u);
    for (double start = thread_seconds(); thread_seconds() - start < seconds;) {
        for (int i = 0; i < 100; i++) {
            task.handle.resume();
        }
    }
    uint64_t value = task.handle.promise().value;
    task.handle.destroy();
    return value;
}

extern "C" NOINLINE uint64_t outer(const char *mode, double seconds) {
    return (strcmp(mode, "exceptions") == 0 ? throws(seconds) : resumes(seconds)) + 1;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        return 2;
    }
    usleep(useconds_t((argc > 3 ? atof(argv[3]) : 0) * 1e6));
    uint64_t check = outer(argv[1], atof(argv[2]));
    printf("{\"check\":%d}\n", int(check & 1));
}
