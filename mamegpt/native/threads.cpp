// Which threads compute.
#include "export.h"
#include "team.h"

// Take the threads of an OpenMP library of GCC's kind: its `GOMP_parallel` and `omp_get_num_threads`.
EXPORTED void mame_use_threads(void (*start)(void (*)(void*), void*, unsigned, unsigned), int (*count)()) {
    start_threads = start, count_threads = count;
}
