// Threads that work on one thing together. Each owns a fixed part of what is written, so nothing is added up in an
// order that depends on who was first.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

struct Part {
    int begin, end;
};

class Team {
  public:
    int size = 1;

    // Wait until all have come here.
    void meet() {
        std::unique_lock<std::mutex> lock(mutex);
        long now = n_meetings;
        if (++n_here == size) {
            n_here = 0;
            n_meetings++;
            all_here.notify_all();
        } else {
            all_here.wait(lock, [&] { return n_meetings != now; });
        }
    }

    // The part of 0 .. n that is one's own: whole units, as equal as they can be.
    Part part(int me, int n, int unit = 1) const {
        long n_units = (n + unit - 1) / unit;
        return {std::min<int>(n, n_units * me / size * unit), std::min<int>(n, n_units * (me + 1) / size * unit)};
    }

    // Call work(team, me) on n threads, or on as many as the system gives, and wait for all.
    template <typename Work>
    static void run(int n, Work work) {
        Team team;
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
    std::mutex mutex;
    std::condition_variable all_here;
    int n_here = 0;
    long n_meetings = 0;
};
