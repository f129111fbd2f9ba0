/*
 * libgearman's worker, with the interface of `child`. It reads numbers of jobs from standard input,
 * does that many jobs, and answers each number with a line of JSON: the seconds per job, from the
 * first job to the last.
 *
 *     worker PORT
 */

#include <libgearman/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double wall, cpu;
static long done, count;

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void *work(gearman_job_st *job, void *context, size_t *size, gearman_return_t *result)
{
    (void)job, (void)context;
    done++;
    if (done == 1) {
        wall = seconds(CLOCK_MONOTONIC);
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    } else if (done == count) {
        wall = seconds(CLOCK_MONOTONIC) - wall;
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    }
    *size = 0;
    *result = GEARMAN_SUCCESS;
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    gearman_worker_st *worker = gearman_worker_create(NULL);
    gearman_worker_add_server(worker, "127.0.0.1", (in_port_t)atoi(argv[1]));
    gearman_worker_add_function(worker, "bench", 0, work, NULL);
    while (scanf("%ld", &count) == 1) {
        for (done = 0; done < count;)
            if (gearman_failed(gearman_worker_work(worker))) {
                fprintf(stderr, "libgearman's worker: %s\n", gearman_worker_error(worker));
                return 1;
            }
        printf("{\"jobs\": %ld, \"wall\": %.12f, \"cpu\": %.12f}\n", count, wall / (count - 1),
               cpu / (count - 1));
        fflush(stdout);
    }
    gearman_worker_free(worker);
    return 0;
}
