/*
 * libgearman's client, with the interface of `child`. It reads numbers of jobs from standard input,
 * submits that many jobs, and answers each number with a line of JSON: the seconds per job.
 *
 *     client PORT (bulk|single) (background|foreground)
 *     client --version
 */

#include <libgearman/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char task_name[] = "bench", data[] = "hello";

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void check(gearman_client_st *client, gearman_return_t result)
{
    if (gearman_failed(result)) {
        fprintf(stderr, "libgearman's client: %s\n", gearman_client_error(client));
        exit(1);
    }
}

static void submit_at_once(gearman_client_st *client, int background, long count)
{
    gearman_return_t result;
    for (long number = 0; number < count; number++) {
        if (background)
            gearman_client_add_task_background(client, NULL, NULL, task_name, NULL, data,
                                               strlen(data), &result);
        else
            gearman_client_add_task(client, NULL, NULL, task_name, NULL, data, strlen(data),
                                    &result);
        check(client, result);
    }
    check(client, gearman_client_run_tasks(client));
    gearman_client_task_free_all(client);
}

static void submit_each(gearman_client_st *client, int background, long count)
{
    gearman_return_t result;
    gearman_job_handle_t handle;
    size_t size;
    for (long number = 0; number < count; number++) {
        if (background)
            result = gearman_client_do_background(client, task_name, NULL, data, strlen(data),
                                                  handle);
        else
            free(gearman_client_do(client, task_name, NULL, data, strlen(data), &size, &result));
        check(client, result);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--version")) {
        puts(gearman_version());
        return 0;
    }
    if (argc != 4)
        return 2;
    int bulk = !strcmp(argv[2], "bulk"), background = !strcmp(argv[3], "background");
    gearman_client_st *client = gearman_client_create(NULL);
    check(client, gearman_client_add_server(client, "127.0.0.1", (in_port_t)atoi(argv[1])));
    long count;
    while (scanf("%ld", &count) == 1) {
        double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        (bulk ? submit_at_once : submit_each)(client, background, count);
        wall = seconds(CLOCK_MONOTONIC) - wall;
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        printf("{\"jobs\": %ld, \"wall\": %.12f, \"cpu\": %.12f}\n", count, wall / count,
               cpu / count);
        fflush(stdout);
    }
    gearman_client_free(client);
    return 0;
}
