// A request now and then between two threads on two CPUs: the partner sleeps in an eventfd, spins, or spins for
// a while and then sleeps. Prints round trips, the CPU that both used, and the interrupts between processors.
//   cc -O1 -o spin spin.c -lpthread && ./spin GAP_US      GAP_US: pause between an answer and the next request
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { TURNS = 7, ROUNDS = 500, WAYS = 4 };
// How long the partner, and the caller that waits for it, look before they sleep; -1: they never sleep.
static const long spin_us[WAYS] = {0, 20, 50, -1};
static const char *const names[WAYS] = {"sleeps at once", "spins 20 us, sleeps", "spins 50 us, sleeps", "spins for ever"};

// A bell as the broker has it: who waits says so, and is woken only then.
struct bell { atomic_long count; atomic_int sleeps; int event; };
static struct bell there, back;
static atomic_int way;

static double now_us(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void ring(struct bell *bell) {
  atomic_fetch_add(&bell->count, 1);
  if (atomic_load(&bell->sleeps)) eventfd_write(bell->event, 1);
}

static void wait_for(struct bell *bell, long count, long spin) {
  double end = now_us(CLOCK_MONOTONIC) + spin;
  for (;;) {
    for (int i = 0; i < 32; i++) {
      if (atomic_load(&bell->count) >= count) return;
      __builtin_ia32_pause();
    }
    if (spin < 0 || now_us(CLOCK_MONOTONIC) < end) continue;
    atomic_store(&bell->sleeps, 1);
    if (atomic_load(&bell->count) < count) {
      eventfd_t value;
      eventfd_read(bell->event, &value);
    }
    atomic_store(&bell->sleeps, 0);
  }
}

static void run_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set)) { perror("sched_setaffinity"); exit(1); }
}

static void *partner(void *unused) {
  run_on(1);
  for (long count = 1;; count++) {
    wait_for(&there, count, spin_us[way]);
    ring(&back);
  }
  return unused;
}

// Interrupts with which processors told each other to look at their run queues or to call something.
static double interrupts(void) {
  double sum = 0;
  char line[1024];
  FILE *file = fopen("/proc/interrupts", "r");
  while (file && fgets(line, sizeof line, file)) {
    double here, other;
    char *name = line + strspn(line, " ");
    if (!strncmp(name, "RES:", 4) || !strncmp(name, "CAL:", 4))
      if (sscanf(name + 4, "%lf %lf", &here, &other) == 2) sum += here + other;
  }
  if (file) fclose(file);
  return sum;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int count, char **words) {
  if (count != 2) return 2;
  double gap = atof(words[1]);
  static double us[WAYS][TURNS * ROUNDS];
  double cpu[WAYS][TURNS], told[WAYS] = {0};
  pthread_t thread;
  there.event = eventfd(0, 0);
  back.event = eventfd(0, 0);
  run_on(0);
  pthread_create(&thread, NULL, partner, NULL);
  long asked = 0;
  for (int turn = -1; turn < TURNS; turn++)  // the first turn only warms up
    for (int w = 0; w < WAYS; w++) {
      way = w;
      // The partner may still sleep in the last way's manner.
      ring(&there);
      wait_for(&back, ++asked, 0);
      double before = now_us(CLOCK_PROCESS_CPUTIME_ID), interrupted = interrupts(), paused = 0;
      for (int i = 0; i < ROUNDS; i++) {
        struct timespec pause = {0, gap * 1e3};
        double start = now_us(CLOCK_THREAD_CPUTIME_ID);
        if (gap > 0) nanosleep(&pause, NULL);
        paused += now_us(CLOCK_THREAD_CPUTIME_ID) - start;
        start = now_us(CLOCK_MONOTONIC);
        ring(&there);
        wait_for(&back, ++asked, spin_us[w]);
        if (turn >= 0) us[w][turn * ROUNDS + i] = now_us(CLOCK_MONOTONIC) - start;
      }
      if (turn < 0) continue;
      cpu[w][turn] = (now_us(CLOCK_PROCESS_CPUTIME_ID) - before - paused) / ROUNDS;
      told[w] += (interrupts() - interrupted) / ROUNDS / TURNS;
    }
  for (int w = 0; w < WAYS; w++) {
    qsort(us[w], TURNS * ROUNDS, sizeof(double), by_size);
    qsort(cpu[w], TURNS, sizeof(double), by_size);
    const int all = TURNS * ROUNDS;
    printf("gap %5.0f us  %-20s p50 %6.1f us, p99 %7.1f us, p99.9 %7.0f us; CPU %6.1f us (%.1f-%.1f), %.1f interrupts\n",
           gap, names[w], us[w][all / 2], us[w][all * 99 / 100], us[w][all * 999 / 1000], cpu[w][TURNS / 2],
           cpu[w][0], cpu[w][TURNS - 1], told[w]);
  }
  exit(0);
}
