// How long a thread that only looks at the clock is away from its CPU: on an idle machine that is what the kernel and
// the hypervisor take. Prints the gaps, and how long a message that comes at any moment would wait for them to end.
//   cc -O2 -o gaps gaps.c -lpthread && ./gaps SECONDS CPU [CPU ...]
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { GAPS_MAX = 1 << 20, CPUS_MAX = 64, GAP_NS_MIN = 50 * 1000, TOLD = 5 };

struct look { int cpu; double seconds; int count; double *gaps_ns; pthread_t thread; };

static long now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000L + time.tv_nsec;
}

static void *run(void *argument) {
  struct look *look = argument;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(look->cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) {
    perror("sched_setaffinity");
    exit(2);
  }
  long last = now_ns(), end = last + (long)(look->seconds * 1e9);
  while (last < end) {
    long now = now_ns();
    if (GAP_NS_MIN < now - last && look->count < GAPS_MAX) look->gaps_ns[look->count++] = now - last;
    last = now;
  }
  return NULL;
}

static int longest_first(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x < y) - (y < x);
}

// A moment falls into a gap by its length, and waits for what is left of it: the wait that so many of all have.
static double waits_ns(const struct look *look, double share) {
  double low = 0, high = 60e9;
  for (int step = 0; step < 80; step++) {
    double wait = (low + high) / 2, longer = 0;
    for (int at = 0; at < look->count; at++)
      if (wait < look->gaps_ns[at]) longer += look->gaps_ns[at] - wait;
    if (share < longer / (look->seconds * 1e9)) low = wait;
    else high = wait;
  }
  return low;
}

int main(int count, char **words) {
  static struct look looks[CPUS_MAX];
  int cpus = count - 2;
  if (cpus < 1 || CPUS_MAX < cpus || atof(words[1]) <= 0) {
    fprintf(stderr, "gaps: SECONDS CPU [CPU ...]\n");
    return 2;
  }
  for (int at = 0; at < cpus; at++) {
    looks[at] = (struct look){.cpu = atoi(words[at + 2]), .seconds = atof(words[1])};
    looks[at].gaps_ns = malloc(GAPS_MAX * sizeof(double));
    pthread_create(&looks[at].thread, NULL, run, &looks[at]);
  }
  for (int at = 0; at < cpus; at++) {
    struct look *look = &looks[at];
    double sum = 0;
    pthread_join(look->thread, NULL);
    qsort(look->gaps_ns, look->count, sizeof(double), longest_first);
    for (int gap = 0; gap < look->count; gap++) sum += look->gaps_ns[gap];
    printf("cpu %d: %.2f %% of the time in %d gaps, the longest, ms:", look->cpu, sum / look->seconds / 1e7, look->count);
    for (int gap = 0; gap < TOLD && gap < look->count; gap++) printf(" %.2f", look->gaps_ns[gap] / 1e6);
    printf("; waits, ms: p99.9 %.2f, p99.99 %.2f\n", waits_ns(look, 1e-3) / 1e6, waits_ns(look, 1e-4) / 1e6);
  }
}
