// Threads that work on one thing together. Work is cut into units, each of which writes its own part of the result, so
// it does not matter which thread takes it: a thread that another program keeps waiting takes fewer.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

class Team {
  public:
    // Call each(0), ..., each(n_units - 1), on all threads that have come here, and wait until all are done.
    template <typename Each>
    void share(int n_units, Each each) {
        for (int unit; (unit = next++) < n_units;) each(unit);
        std::unique_lock<std::mutex> lock(mutex);
        long now = n_meetings;
        if (++n_here == size) {
            n_here = 0, next = 0, n_meetings++;
            all_here.notify_all();
        } else {
            all_here.wait(lock, [&] { return n_meetings != now; });
        }
    }

    // Call work(team) on n threads, or on as many as the system gives, and wait for all.
    template <typename Work>
    static void run(int n, Work work) {
        Team team;
        std::vector<std::thread> others;
        {
            std::lock_guard<std::mutex> none_begins(team.mutex);
            try {
                for (int i = 1; i < n; i++)
                    others.emplace_back([&team, &work] {
                        { std::lock_guard<std::mutex> size_is_known(team.mutex); }
                        work(team);
                    });
            } catch (const std::system_error&) {  // no more threads: those that there are do all
            }
            team.size = int(others.size()) + 1;
        }
        work(team);
        for (auto& other : others) other.join();
    }

  private:
    int size = 1;
    std::atomic<int> next{0};
    std::mutex mutex;
    std::condition_variable all_here;
    int n_here = 0;
    long n_meetings = 0;
};
