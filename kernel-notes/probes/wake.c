// Two threads wake each other through eventfds; prints how long there and back takes.
//   cc -O1 -o wake wake.c -lpthread && ./wake CPU      CPU of the partner; this thread is on CPU 0
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 20000 };
static int there, back;

static void run_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

static void *partner(void *cpu) {
  eventfd_t value;
  run_on((long)cpu);
  while (!eventfd_read(there, &value) && !eventfd_write(back, 1)) {}
  return NULL;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int count, char **words) {
  if (count != 2) return 2;
  static double us[ROUNDS];
  pthread_t thread;
  there = eventfd(0, 0);
  back = eventfd(0, 0);
  run_on(0);
  pthread_create(&thread, NULL, partner, (void *)atol(words[1]));
  for (int i = 0; i < ROUNDS; i++) {
    struct timespec start, end;
    eventfd_t value;
    clock_gettime(CLOCK_MONOTONIC, &start);
    eventfd_write(there, 1);
    eventfd_read(back, &value);
    clock_gettime(CLOCK_MONOTONIC, &end);
    us[i] = (end.tv_sec - start.tv_sec) * 1e6 + (end.tv_nsec - start.tv_nsec) / 1e3;
  }
  qsort(us, ROUNDS, sizeof *us, by_size);
  printf("partner on CPU %s: p50 %.1f us, p99 %.1f us, p99.9 %.0f us\n", words[1], us[ROUNDS / 2],
         us[ROUNDS / 100 * 99], us[ROUNDS / 1000 * 999]);
  exit(0);
}
