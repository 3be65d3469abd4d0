// Threads that work on one thing together. Work is cut into units, each of which writes its own part of the result, so
// it does not matter which thread takes it: a thread that another program keeps waiting takes fewer.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

// PyTorch's threads, if `mame_use_threads` was called: after each of its operations they wait in a loop for the next one,
// and would take the processor from others. They are those of GCC's OpenMP, by its function for a parallel region.
inline void (*start_threads)(void (*work)(void*), void* data, unsigned n, unsigned flags) = nullptr;
inline int (*count_threads)() = nullptr;  // how many there are, called in such a region

class Team {
  public:
    // Call each(0), ..., each(n_units - 1), on all threads that have come here, and wait until all are done.
    template <typename Each>
    void share(int n_units, Each each) {
        for (int unit; (unit = next++) < n_units;) each(unit);
        const long now = n_meetings;
        {
            std::lock_guard<std::mutex> lock(mutex);
            if (++n_here == size) {
                n_here = 0, next = 0, n_meetings++;
                all_here.notify_all();
                return;
            }
        }
        for (int i = 0; i < POLLS; i++, pause())
            if (n_meetings != now) return;
        std::unique_lock<std::mutex> lock(mutex);
        all_here.wait(lock, [&] { return n_meetings != now; });
    }

    // Call work(team, me) on threads 0 to n - 1, or on as many as the system gives, and wait for all.
    template <typename Work>
    static void run(int n, Work work) {
        Team team;
        if (start_threads && n > 1) {
            struct Region {
                Team* team;
                Work* work;
                std::atomic<int> n_begun;
            } region{&team, &work, {0}};
            start_threads(
                [](void* data) {
                    Region& r = *static_cast<Region*>(data);
                    r.team->size = count_threads();
                    (*r.work)(*r.team, r.n_begun++);
                },
                &region, unsigned(n), 0);
            return;
        }
        std::vector<std::thread> others;
        {
            std::lock_guard<std::mutex> none_begins(team.mutex);
            try {
                for (int me = 1; me < n; me++)
                    others.emplace_back([&team, &work, me] {
                        { std::lock_guard<std::mutex> size_is_known(team.mutex); }
                        work(team, me);
                    });
            } catch (const std::system_error&) {  // no more threads: those that there are do all
            }
            team.size = int(others.size()) + 1;
        }
        work(team, 0);
        for (auto& other : others) other.join();
    }

  private:
    static constexpr int POLLS = 1000;  // tens of microseconds, which is less than a sleep takes

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    std::atomic<int> size{1};
    std::atomic<int> next{0};
    std::mutex mutex;
    std::condition_variable all_here;
    int n_here = 0;
    std::atomic<long> n_meetings{0};
};
