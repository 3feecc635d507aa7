// Sends one buffer through loopback with the ring's SEND and SEND_ZC, in turn, and prints what each costs the
// sender in CPU and how often the kernel says that it copied after all (IORING_SEND_ZC_REPORT_USAGE, 6.2).
//   cc -O1 -o send_zc send_zc.c -lpthread && ./send_zc
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { TURNS = 9, SENDS = 400, BYTES = 1 << 20 };
enum way { SEND, ZC, ZC_FIXED, WAYS };
static const char *const names[WAYS] = {"SEND", "SEND_ZC", "SEND_ZC, registered buffer"};
static int ring;
static unsigned *sq_tail, *sq_array, sq_mask, *cq_head, *cq_tail, cq_mask;
static struct io_uring_sqe *entries;
static struct io_uring_cqe *answers;

static void fail(const char *what) { perror(what); exit(1); }

static void *drain(void *socket) {
  static char bytes[1 << 20];
  while (read((long)socket, bytes, sizeof bytes) > 0) {}
  return NULL;
}

static double cpu_us(void) {
  struct timespec time;  // getrusage moves in ticks only
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void open_ring(void *bytes) {
  struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
  ring = syscall(__NR_io_uring_setup, 8, &params);
  if (ring < 0) fail("io_uring_setup");
  size_t sq = params.sq_off.array + params.sq_entries * sizeof(unsigned);
  size_t cq = params.cq_off.cqes + params.cq_entries * sizeof *answers;
  char *at = mmap(NULL, sq > cq ? sq : cq, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
  entries = mmap(NULL, params.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
  if (at == MAP_FAILED || (void *)entries == MAP_FAILED) fail("mmap");
  sq_tail = (void *)(at + params.sq_off.tail);
  sq_array = (void *)(at + params.sq_off.array);
  sq_mask = *(unsigned *)(at + params.sq_off.ring_mask);
  cq_head = (void *)(at + params.cq_off.head);
  cq_tail = (void *)(at + params.cq_off.tail);
  cq_mask = *(unsigned *)(at + params.cq_off.ring_mask);
  answers = (void *)(at + params.cq_off.cqes);
  struct iovec whole = {bytes, BYTES};
  if (syscall(__NR_io_uring_register, ring, IORING_REGISTER_BUFFERS, &whole, 1)) fail("register a buffer");
}

// Waits for one answer; the caller looks at it before the next call.
static struct answer { int res; unsigned flags; } answer(int submit) {
  while (submit || *cq_head == __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE)) {
    if (syscall(__NR_io_uring_enter, ring, submit, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) fail("io_uring_enter");
    submit = 0;
  }
  struct io_uring_cqe *next = &answers[*cq_head & cq_mask];
  struct answer taken = {next->res, next->flags};
  __atomic_store_n(cq_head, *cq_head + 1, __ATOMIC_RELEASE);
  return taken;
}

// Sends and waits until the buffer is free again. Answers whether the kernel had copied it.
static int send_one(enum way way, int socket, char *bytes, unsigned len) {
  struct io_uring_sqe *entry = &entries[*sq_tail & sq_mask];
  *entry = (struct io_uring_sqe){.opcode = way == SEND ? IORING_OP_SEND : IORING_OP_SEND_ZC, .fd = socket,
                                 .addr = (long)bytes, .len = len, .msg_flags = MSG_WAITALL};
  if (way != SEND) entry->ioprio = IORING_SEND_ZC_REPORT_USAGE;
  if (way == ZC_FIXED) entry->ioprio |= IORING_RECVSEND_FIXED_BUF;
  sq_array[*sq_tail & sq_mask] = *sq_tail & sq_mask;
  __atomic_store_n(sq_tail, *sq_tail + 1, __ATOMIC_RELEASE);
  struct answer sent = answer(1);
  if (sent.res != (int)len) { fprintf(stderr, "sent %d of %u\n", sent.res, len); exit(1); }
  if (!(sent.flags & IORING_CQE_F_MORE)) return 0;
  return ((unsigned)answer(0).res & IORING_NOTIF_USAGE_ZC_COPIED) != 0;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(void) {
  int listener = socket(AF_INET, SOCK_STREAM, 0), out = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof at;
  setsockopt(out, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
  setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  if (bind(listener, (void *)&at, len) || listen(listener, 1)) fail("listen");
  getsockname(listener, (void *)&at, &len);
  if (connect(out, (void *)&at, len)) fail("connect");
  pthread_t thread;
  pthread_create(&thread, NULL, drain, (void *)(long)accept(listener, NULL, NULL));
  char *bytes = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  memset(bytes, 7, BYTES);
  open_ring(bytes);
  const unsigned sizes[] = {1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20};
  for (int s = 0; s < 6; s++) {
    double us[WAYS][TURNS];
    int copied[WAYS] = {0};
    for (int turn = -1; turn < TURNS; turn++)  // the first turn only warms up
      for (enum way way = 0; way < WAYS; way++) {
        double before = cpu_us();
        for (int i = 0; i < SENDS; i++) {
          int told = send_one(way, out, bytes, sizes[s]);
          copied[way] += turn >= 0 ? told : 0;
        }
        if (turn >= 0) us[way][turn] = (cpu_us() - before) / SENDS;
      }
    for (enum way way = 0; way < WAYS; way++) {
      qsort(us[way], TURNS, sizeof(double), by_size);
      printf("%5u KiB  %-28s %7.1f us (%.1f-%.1f)", sizes[s] >> 10, names[way], us[way][TURNS / 2], us[way][0], us[way][TURNS - 1]);
      if (way == SEND) printf("\n");
      else printf("  copied %5.1f %%\n", 100.0 * copied[way] / TURNS / SENDS);
    }
  }
  exit(0);  // without waiting for the reader
}
